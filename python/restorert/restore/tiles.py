"""Overlapping crops, blended so that no seam shows, or averaged as authors of networks do."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.pictures.grid import Box, overlapping_starts, tile_grid
from restorert.restore.protocol import Engine, run_engine


def restore_tiled(
    planes: NDArray[np.float32],
    engine: Engine,
    tile: int,
    batch_size: int = 1,
    overlap: int | None = None,
) -> NDArray[np.float64]:
    """Restore crops of a picture and blend them where they overlap.

    Networks with instance statistics make each crop a little brighter or darker than its
    neighbours. So the weight of a crop falls in a straight line to nothing at its edge, over all
    that it shares with its neighbour: a difference becomes the gentlest slope there is room for.

    Args:
        planes: [C, H, W] float32 in [0, 1].
        engine: see `Engine`.
        tile: side of the crops in pixels.
        batch_size: crops per call of the engine.
        overlap: least number of pixels that neighbours share, see `overlapping_starts`; None for
            the authors' own grid (`tile_grid`), averaged where its crops happen to overlap.

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
    boxes, weights = _layout(height, width, tile, overlap)
    total, whole = np.zeros(planes.shape), np.zeros((height, width))
    for first in range(0, len(boxes), batch_size):
        batch = boxes[first : first + batch_size]
        crops = np.stack([planes[:, top:bottom, left:right] for top, left, bottom, right in batch])
        restored = run_engine(engine, crops)
        for index, (top, left, bottom, right) in enumerate(batch):
            weight = weights[first + index]
            total[:, top:bottom, left:right] += restored[index] * weight
            whole[top:bottom, left:right] += weight
    total /= whole
    return total


def _layout(
    height: int, width: int, tile: int, overlap: int | None
) -> tuple[list[Box], list[NDArray[np.float64]]]:
    """Boxes, and the weight of each pixel of each: [h, w] or a shape that broadcasts to it."""
    if overlap is None:
        boxes = tile_grid(height, width, tile)
        return boxes, [np.ones((1, 1))] * len(boxes)
    rows, columns = (
        [(start, min(start + tile, length)) for start in overlapping_starts(length, tile, overlap)]
        for length in (height, width)
    )
    pairs = list(
        itertools.product(
            zip(rows, _ramps(rows), strict=True), zip(columns, _ramps(columns), strict=True)
        )
    )
    boxes = [(row[0], column[0], row[1], column[1]) for (row, _), (column, _) in pairs]
    return boxes, [down[:, None] * across for (_, down), (_, across) in pairs]


def _ramps(spans: list[tuple[int, int]]) -> list[NDArray[np.float64]]:
    """The weights of crops in one direction, in (0, 1]: ramps over what neighbours share."""
    found = []
    for index, (start, end) in enumerate(spans):
        at = np.arange(start, end) + 0.5
        weight = np.ones(end - start)
        if index and (shared := spans[index - 1][1] - start):
            weight = np.minimum(weight, (at - start) / shared)
        if index + 1 < len(spans) and (shared := end - spans[index + 1][0]):
            weight = np.minimum(weight, (end - at) / shared)
        found.append(weight)
    return found
