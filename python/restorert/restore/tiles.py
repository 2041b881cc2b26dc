"""Overlapping crops, averaged, as authors of networks with instance statistics test them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.pictures.grid import tile_grid
from restorert.restore.protocol import Engine, run_engine


def restore_tiled(
    planes: NDArray[np.float32], engine: Engine, tile: int, batch_size: int = 1
) -> NDArray[np.float64]:
    """Restore crops of a picture and average them where they overlap.

    Args:
        planes: [C, H, W] float32 in [0, 1].
        engine: see `Engine`.
        tile: side of the crops in pixels; see `tile_grid`.
        batch_size: crops per call of the engine.

    Returns:
        [C, H, W], not clamped.

    Raises:
        InputError: another dtype or rank, or ``tile`` or ``batch_size`` below 1.
        RestorertError: see `run_engine`.
    """
    if planes.ndim != 3 or planes.dtype != np.float32:
        raise InputError(
            f"restore_tiled takes [C, H, W] of float32, not {list(planes.shape)} of {planes.dtype}"
        )
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be >= 1")
    height, width = planes.shape[1:]
    boxes = tile_grid(height, width, tile)
    total, count = np.zeros(planes.shape), np.zeros((height, width))
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        crops = np.stack([planes[:, top:bottom, left:right] for top, left, bottom, right in batch])
        restored = run_engine(engine, crops)
        for crop, (top, left, bottom, right) in zip(restored, batch, strict=True):
            total[:, top:bottom, left:right] += crop
            count[top:bottom, left:right] += 1
    total /= count
    return total
