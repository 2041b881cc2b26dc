"""The one door to the compiled kernels: torch tensors in, pointers and a stream out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from restorert.errors import InputError, RunnerUnavailableError


@functools.cache
def native() -> ModuleType:
    """The compiled extension.

    Raises:
        RunnerUnavailableError: it was not built; the message says how to build it.
    """
    try:
        from restorert import _native
    except ImportError as error:
        raise RunnerUnavailableError(
            f"restorert's compiled kernels cannot be loaded ({error}); build them: pip install ."
        ) from None
    return _native


def _view(tensor: Tensor | None) -> object:
    if tensor is None:
        return None
    return native().TensorView(
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.stride(),
        str(tensor.dtype).removeprefix("torch."),
        tensor.device.type,
        -1 if tensor.device.index is None else tensor.device.index,
    )


def run_native(
    name: str,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor],
    attributes: Sequence[float],
) -> None:
    """Run the compiled op ``name``, which fills ``outputs``.

    The layout of the first output decides the layout the kernel runs in: every 4-dimensional
    tensor in another one is copied, all others are made contiguous.

    Raises:
        InputError: shapes, dtypes or devices the op does not take.
        RunnerUnavailableError: the extension, or its CUDA part, was not built.
    """
    first = outputs[0]
    pixels = not first.is_contiguous() and first.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if pixels else torch.contiguous_format

    def dense(tensor: Tensor) -> Tensor:
        kept = layout if tensor.ndim == 4 else torch.contiguous_format
        return tensor.contiguous(memory_format=kept)

    sources = [tensor if tensor is None else dense(tensor) for tensor in inputs]
    results = [
        out
        if out.ndim != 4 or out.is_contiguous(memory_format=layout)
        else torch.empty_like(out, memory_format=layout)
        for out in outputs
    ]
    views = [_view(tensor) for tensor in (*sources, *results)]
    module = native()
    device = outputs[0].device
    try:
        if device.type == "cuda":
            with torch.cuda.device(device):
                size = getattr(module, f"{name}_workspace_size")(views[0])
                workspace = torch.empty(size, dtype=torch.uint8, device=device)
                stream = torch.cuda.current_stream(device).cuda_stream
                getattr(module, name)(
                    *views, *attributes, workspace=_view(workspace), stream=stream
                )
        else:
            getattr(module, name)(*views, *attributes)
    except module.NotCompiledError as error:
        raise RunnerUnavailableError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    for out, result in zip(outputs, results, strict=True):
        if out is not result:
            out.copy_(result)
