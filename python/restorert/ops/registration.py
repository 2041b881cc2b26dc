"""Registering a fused op with torch: CPU, CUDA, fake and autograd, the same way for every op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.ops.native_call import run_native

_LIBRARY = torch.library.Library("restorert", "FRAGMENT")


def register_op(
    schema: str, *, reference: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Register ``restorert::<name>`` and return its overload.

    The compiled op of that name runs it, on the CPU and on CUDA; float64, which has no kernel, runs
    through ``reference``, and so does the gradient, by recomputing.

    Args:
        schema: torch's schema without the namespace: tensors first, then float attributes. A
            tensor may be optional, but not the first.
        reference: the formula in plain torch.
        fake: checks the arguments and returns empty outputs of the right shapes and strides.
    """
    name = schema.split("(", 1)[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    overload = getattr(torch.ops.restorert, name).default
    tensors = sum("Tensor" in str(a.type) for a in overload._schema.arguments)

    def kernel(*arguments: Any) -> Any:
        outputs = fake(*arguments)
        flat = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if arguments[0].dtype == torch.float64:
            expected = reference(*arguments)
            expected = (expected,) if isinstance(expected, Tensor) else expected
            for out, value in zip(flat, expected, strict=True):
                out.copy_(value)
        else:
            run_native(name, arguments[:tensors], flat, arguments[tensors:])
        return outputs

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.attributes = inputs[tensors:]

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Recomputes through the reference: training needs the right gradient, not a fast one.
        with torch.enable_grad():
            saved = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
            outputs = reference(*saved, *ctx.attributes)
        flat = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        used = [(out, grad) for out, grad in zip(flat, grads, strict=True) if grad is not None]
        wanted = [t for t in saved if t is not None]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True
            )
        )
        by_input = [None if t is None else next(found) for t in saved]
        return (*by_input, *(None for _ in ctx.attributes))

    def with_defaults(*arguments: Any) -> Any:
        return kernel(*_filled(overload._schema, arguments))

    for key in ("CPU", "CUDA"):
        torch.library.impl(_LIBRARY, name, key)(with_defaults)
    torch.library.register_fake(f"restorert::{name}", fake, lib=_LIBRARY)
    torch.library.register_autograd(
        f"restorert::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )
    return overload  # type: ignore[no-any-return]


def _filled(schema: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    # The dispatcher drops trailing arguments that equal their defaults.
    rest = schema.arguments[len(arguments) :]
    return (*arguments, *(argument.default_value for argument in rest))


def check_dense(op: str, **tensors: Tensor | None) -> None:
    """Refuse what has no memory that a kernel could read.

    Called by the public functions, since the dispatcher never hands such tensors to a kernel.

    Raises:
        InputError: a sparse tensor, or tensors on different devices; names the argument.
    """
    first, device = next((name, t.device) for name, t in tensors.items() if t is not None)
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.layout != torch.strided:
            raise InputError(f"{op}: argument '{name}' is sparse; expected a dense tensor")
        if tensor.device != device:
            raise InputError(
                f"{op}: argument '{name}' is on {tensor.device}; expected {device}, like '{first}'"
            )
