"""Any picture size: grow to the sizes a network takes, crop the result back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.spec import PaddingMode


def source_indices(size: int, target: int, mode: PaddingMode) -> NDArray[np.int64]:
    """For each of ``target`` positions, the source pixel in [0, size) that pads it.

    ``reflect`` mirrors without repeating the border, as often as needed, so that even a picture
    of one pixel can be padded (torch's own padding refuses more than ``size - 1``); ``edge``
    repeats the last pixel.
    """
    return np.pad(np.arange(size), (0, target - size), mode)


def pad(x: Any, height: int, width: int, mode: PaddingMode) -> Any:
    """[..., H, W] -> [..., height, width], grown below and to the right; numpy or torch."""
    rows, columns = x.shape[-2:]
    if rows != height:
        x = x[..., source_indices(rows, height, mode), :]
    if columns != width:
        x = x[..., source_indices(columns, width, mode)]
    return x
