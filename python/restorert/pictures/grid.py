"""Where tiles lie in a picture."""

from __future__ import annotations

import math
from typing import Literal

from restorert.errors import InputError
from restorert.spec import NetworkSpec

Box = tuple[int, int, int, int]

Tile = Literal["auto"] | int | None
"""The side of crops in pixels, "auto" for the network's own, or None: see `restore_picture`."""


def tile_side(tile: Tile, spec: NetworkSpec) -> int | None:
    """``tile`` in pixels, or None for whole pictures; InputError if it is no `Tile`."""
    side = spec.tile if tile == "auto" else tile
    if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise InputError(f'tile is {side!r:.20}; it must be "auto", None or pixels >= 1')
    return side


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
