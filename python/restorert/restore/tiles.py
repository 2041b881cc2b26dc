"""Overlapping crops, averaged: how authors of networks with instance statistics test them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.pictures.grid import tile_grid
from restorert.pictures.pixels import from_unit_range, to_unit_range
from restorert.restore.protocol import Engine, run_engine


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
