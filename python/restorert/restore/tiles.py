"""Overlapping crops, averaged: how authors of networks with instance statistics test them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.restore.pixels import Engine, from_unit_range, run_engine, to_unit_range

Box = tuple[int, int, int, int]


def _starts(length: int, tile: int) -> list[int]:
    count = (length - 1) // tile + 1
    if count == 1:
        return [0]
    step = math.ceil((length - tile) / (count - 1) - 1e-8)
    return [min(i * step, length - tile) for i in range(count)]


def tile_grid(height: int, width: int, tile: int) -> list[Box]:
    """Crops of side ``tile`` that cover a picture, as HINet's authors lay them.

    The fewest crops that cover each direction, a constant step apart, the last one flush with the
    border (`ImageRestorationModel.grids` of the official HINet code). A direction shorter than
    ``tile`` gets one crop of its own length.

    Args:
        height: of the picture, in pixels, >= 1.
        width: likewise.
        tile: side of the crops, in pixels, >= 1.

    Returns:
        Boxes (top, left, bottom, right), row by row, the last two excluded.

    Raises:
        InputError: an argument below 1.
    """
    if min(height, width, tile) < 1:
        raise InputError(
            f"a grid needs height, width and tile >= 1, not {height}, {width} and {tile}"
        )
    return [
        (top, left, min(top + tile, height), min(left + tile, width))
        for top in _starts(height, tile)
        for left in _starts(width, tile)
    ]


def restore_tiled(
    array: NDArray[Any], engine: Engine, tile: int, batch_size: int = 1
) -> NDArray[Any]:
    """Restore crops of a picture and average them where they overlap.

    Crops go through the engine as floats; their sum is kept in float64 and rounded once.

    Args:
        array: [H, W, C], uint8 or uint16 over their full range, or float32 in [0, 1].
        engine: see `Engine`.
        tile: side of the crops in pixels; see `tile_grid`.
        batch_size: crops a call; the last call has what is left.

    Returns:
        An array like ``array``; floats are not clamped.

    Raises:
        InputError: another dtype or rank, or ``tile`` or ``batch_size`` below 1.
    """
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(
            "restore_tiled takes [H, W, C] of uint8, uint16 or float32, "
            f"not {list(array.shape)} of {array.dtype}"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be >= 1")
    height, width, channels = array.shape
    boxes = tile_grid(height, width, tile)
    total = np.zeros((channels, height, width))
    count = np.zeros((height, width))
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        crops = np.stack([array[top:bottom, left:right] for top, left, bottom, right in batch])
        restored = run_engine(engine, to_unit_range(crops))
        for crop, (top, left, bottom, right) in zip(restored, batch, strict=True):
            total[:, top:bottom, left:right] += crop
            count[top:bottom, left:right] += 1
    total /= count
    if array.dtype == np.float32:
        return np.ascontiguousarray(total.transpose(1, 2, 0), dtype=np.float32)
    rounded: NDArray[Any] = from_unit_range(total[None], array.dtype, engine.spec.rounding)[0]
    return rounded
