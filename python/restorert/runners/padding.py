"""Any picture size: grow to the sizes a network takes, crop the result back."""

from __future__ import annotations

import torch
from torch import Tensor

from restorert.networks.spec import PaddingMode


def padded_size(size: int, multiple: int, smallest: int = 1) -> int:
    """The least multiple of ``multiple`` that holds ``size`` and ``smallest`` pixels."""
    return -(-max(size, smallest) // multiple) * multiple


def source_indices(size: int, target: int, mode: PaddingMode) -> Tensor:
    """For each of ``target`` positions, the source pixel in [0, size) that pads it.

    ``reflect`` mirrors without repeating the border, as often as needed, so that even a picture
    of one pixel can be padded (torch's own padding refuses more than ``size - 1``); ``edge``
    repeats the last pixel.
    """
    positions = torch.arange(target)
    if mode == "edge" or size == 1:
        return positions.clamp(max=size - 1)
    period = 2 * (size - 1)
    folded = positions % period
    return torch.where(folded < size, folded, period - folded)


def pad(x: Tensor, height: int, width: int, mode: PaddingMode) -> Tensor:
    """[..., H, W] -> [..., height, width], grown below and to the right."""
    for axis, target in ((-2, height), (-1, width)):
        size = x.shape[axis]
        if size != target:
            indices = source_indices(size, target, mode).to(x.device)
            x = x.index_select(axis, indices)
    return x
