"""A formula in plain torch becomes a fused op: CPU, CUDA, fake and autograd, for every op alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.ops.arguments import check_dense
from restorert.ops.native_call import run_native

P = ParamSpec("P")
R = TypeVar("R")

_LIBRARY = torch.library.Library("restorert", "FRAGMENT")


def fused_op(fake: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a formula: its calls go to ``restorert::<its name>``, which the kernels compute.

    The decorated function is the reference, the oracle of every other version, and stays callable
    as `OpSpec.reference`. Its signature is the op's: tensors first, then float attributes. A tensor
    may be optional, but not the first. The compiled op of that name runs, on the CPU and on CUDA;
    float64, which has no kernel, runs through the reference, and so does the gradient, by
    recomputing.

    Args:
        fake: checks the arguments and returns empty outputs of the right shapes and strides; its
            errors get the op's name.
    """

    def decorate(reference: Callable[P, R]) -> Callable[P, R]:
        overload = _register(reference, fake)
        name, names = reference.__name__, [a.name for a in overload._schema.arguments]

        @functools.wraps(reference)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            check_dense(name, dict(zip(names, args, strict=False)) | kwargs)
            return overload(*args, **kwargs)

        return call

    return decorate


def _register(reference: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register the op and return its overload."""
    name = reference.__name__
    schema = torch.library.infer_schema(reference, mutates_args=())
    _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    overload = getattr(torch.ops.restorert, name).default
    arguments = overload._schema.arguments
    tensors = sum("Tensor" in str(a.type) for a in arguments)

    def named_fake(*given: Any) -> Any:
        try:
            return fake(*given)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    def kernel(*given: Any) -> Any:
        # The dispatcher drops trailing arguments that equal their defaults.
        given = (*given, *(argument.default_value for argument in arguments[len(given) :]))
        outputs = named_fake(*given)
        if given[0].dtype == torch.float64:
            for out, value in zip(_flat(outputs), _flat(reference(*given)), strict=True):
                out.copy_(value)
        else:
            run_native(name, given[:tensors], _flat(outputs), given[tensors:])
        return outputs

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.attributes = inputs[tensors:]

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        # Recomputes through the reference: training needs the right gradient, not a fast one.
        with torch.enable_grad():
            saved = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
            outputs = _flat(reference(*saved, *ctx.attributes))
        used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if grad is not None]
        wanted = [t for t in saved if t is not None]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True
            )
        )
        by_input = [None if t is None else next(found) for t in saved]
        return (*by_input, *(None for _ in ctx.attributes))

    for key in ("CPU", "CUDA"):
        torch.library.impl(_LIBRARY, name, key)(kernel)
    torch.library.register_fake(f"restorert::{name}", named_fake, lib=_LIBRARY)
    torch.library.register_autograd(
        f"restorert::{name}", backward, setup_context=setup_context, lib=_LIBRARY
    )
    return overload


def _flat(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
