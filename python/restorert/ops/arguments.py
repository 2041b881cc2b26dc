"""What the ops ask of their arguments; each message names the argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from restorert.errors import InputError


def check_dense(op: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what has no memory that a kernel could read.

    Called by the public functions, since the dispatcher never hands such tensors to a kernel.

    Raises:
        InputError: a sparse tensor, or tensors on different devices; names the argument.
    """
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    first, device = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise InputError(f"{op}: argument '{name}' is sparse; expected a dense tensor")
        if tensor.device != device:
            raise InputError(
                f"{op}: argument '{name}' is on {tensor.device}; expected {device}, like '{first}'"
            )


def check_pictures(argument: str, tensor: Tensor, form: str = "[N, C, H, W]") -> None:
    """Refuse a tensor that is not of 4 dimensions; ``form`` names them."""
    if tensor.ndim != 4:
        raise InputError(f"argument '{argument}' has {tensor.ndim} dimensions; expected {form}")


def check_shape(argument: str, tensor: Tensor, shape: tuple[int | torch.SymInt, ...]) -> None:
    """Refuse a tensor of another shape."""
    if tuple(tensor.shape) != shape:
        raise InputError(
            f"argument '{argument}' has shape {list(tensor.shape)}; expected {list(shape)}"
        )


def empty_pictures(like: Tensor, channels: int) -> Tensor:
    """An empty [N, ``channels``, H, W] of the dtype, device and memory format of ``like``."""
    shape = (like.shape[0], channels, *like.shape[2:])
    pixels = like.stride(1) == 1 and like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if pixels else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
