"""Where tiles lie in a picture."""

from __future__ import annotations

import math
from typing import Literal

from restorert.errors import InputError
from restorert.spec import NetworkSpec

Box = tuple[int, int, int, int]

Tile = Literal["auto", "authors"] | int | None
"""The side of crops in pixels, "auto" or "authors", or None: see `restore_picture`."""


def tile_side(tile: Tile, spec: NetworkSpec) -> int | None:
    """``tile`` in pixels, or None for whole pictures; InputError if it is no `Tile`."""
    side = spec.tile if tile in ("auto", "authors") else tile
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise InputError(f'tile is {side!r:.20}; it must be "auto", "authors", None or pixels >= 1')
    return side


def overlap_of(tile: Tile, side: int | None, overlap: int | None) -> int | None:
    """Least overlap of two crops in pixels, by default an eighth of the crop.

    Args:
        tile: see `restore_picture`.
        side: the crops' side in pixels, or None for whole pictures.
        overlap: what was asked for, or None for the default.

    Returns:
        Pixels; None for whole pictures, and for the grid of the authors, who average where crops
        happen to overlap.

    Raises:
        InputError: below 0, above half of ``side``, or given where there are no crops or with
            "authors".
    """
    if side is None:
        if overlap is not None:
            raise InputError(
                f"overlap is {overlap!r:.20}, but pictures are not restored in tiles; name a tile"
            )
        return None
    if tile == "authors":
        if overlap is not None:
            raise InputError('the authors\' grid has its own overlap; use tile="auto" with overlap')
        return None
    if overlap is None:
        return side // 8
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 0 <= overlap <= side // 2:
        raise InputError(
            f"overlap is {overlap!r:.20}; it must be from 0 to half of the tile, {side // 2} pixels"
        )
    return overlap


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
    _check(height, width, tile)
    return [
        (top, left, min(top + tile, height), min(left + tile, width))
        for top in _starts(height, tile)
        for left in _starts(width, tile)
    ]


def overlapping_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where crops begin in one direction: the fewest that overlap everywhere, evenly spread.

    Args:
        length: of the picture, in pixels, >= 1.
        tile: of the crops, in pixels, >= 1; the one crop of a shorter picture is its length.
        overlap: least number of pixels that two neighbours share, from 0 to half of ``tile``.
    """
    _check(length, length, tile)
    if length <= tile:
        return [0]
    last = length - tile
    gaps = -(-last // (tile - overlap))
    return [last * index // gaps for index in range(gaps + 1)]


def _check(height: int, width: int, tile: int) -> None:
    if min(height, width, tile) < 1:
        raise InputError(
            f"a grid needs height, width and tile >= 1, not {height}, {width} and {tile}"
        )
