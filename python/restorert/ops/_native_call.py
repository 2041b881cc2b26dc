"""The one door to the compiled kernels: torch tensors in, pointers and a stream out."""

from __future__ import annotations

import functools
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


def _view(tensor: Tensor) -> object:
    return native().TensorView(
        tensor.data_ptr(),
        tuple(tensor.shape),
        tensor.stride(),
        str(tensor.dtype).removeprefix("torch."),
        tensor.device.type,
        -1 if tensor.device.index is None else tensor.device.index,
    )


def run_native(name: str, *tensors: Tensor, attributes: tuple[float, ...] = ()) -> None:
    """Run the compiled op ``name``; the tensors are its inputs, then its outputs.

    Raises:
        InputError: shapes, dtypes, layouts or devices the op does not take.
        RunnerUnavailableError: the extension, or its CUDA part, was not built.
    """
    module = native()
    views = [_view(tensor) for tensor in tensors]
    device = tensors[0].device
    try:
        if device.type != "cuda":
            getattr(module, name)(*views, *attributes)
            return
        with torch.cuda.device(device):
            size = getattr(module, f"{name}_workspace_size")(*views[:1])
            workspace = torch.empty(size, dtype=torch.uint8, device=device)
            stream = torch.cuda.current_stream(device).cuda_stream
            getattr(module, name)(*views, *attributes, workspace=_view(workspace), stream=stream)
    except module.NotCompiledError as error:
        raise RunnerUnavailableError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None


def check_dense(op: str, **tensors: Tensor) -> None:
    """Refuse what has no memory that a kernel could read.

    Raises:
        InputError: a sparse tensor, or tensors on different devices; names the argument.
    """
    device = next(iter(tensors.values())).device
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise InputError(f"{op}: argument '{name}' is sparse; expected a dense tensor")
        if tensor.device != device:
            raise InputError(
                f"{op}: argument '{name}' is on {tensor.device}; expected {device}, as the first"
            )


def native_layout(tensor: Tensor) -> torch.memory_format | None:
    """The kernel layout that ``tensor`` already has (NCHW or NHWC), or None for any other."""
    for layout in (torch.contiguous_format, torch.channels_last):
        if tensor.is_contiguous(memory_format=layout):
            return layout
    return None
