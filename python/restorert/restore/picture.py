"""From a picture to the restored picture."""

from __future__ import annotations

import dataclasses
import os
from typing import Literal

import numpy as np

from restorert.pictures.files import MAX_PIXELS, Picture, check_target, read_image, write_image
from restorert.pictures.grid import tile_grid
from restorert.pictures.pixels import from_unit_range, to_unit_range
from restorert.restore.protocol import Engine, run_engine
from restorert.restore.tiles import restore_tiled

__all__ = ["Engine", "restore_image", "restore_picture"]


def restore_picture(
    picture: Picture, engine: Engine, *, tile: Literal["auto"] | int | None = "auto"
) -> Picture:
    """Restore a picture; alpha, profile, EXIF and resolution are kept as they are.

    8-bit colour goes to the engine as uint8, which the engine rounds. 16 bits, grey and tiles go as
    float32 and are clamped and rounded once, here (``engine.spec.rounding``). Grey is replicated to
    three channels and the three results are averaged.

    Args:
        picture: what to restore.
        engine: see `Engine`.
        tile: side in pixels of crops that are restored apart and averaged where they overlap;
            "auto" for what the network's authors test with (``engine.spec.tile``), None for the
            picture as a whole.

    Raises:
        InputError: a network that does not map three channels to three, or ``tile`` below 1.
        RestorertError: the engine broke its protocol, or its result is not finite.
    """
    side = engine.spec.tile if tile == "auto" else tile
    pixels = picture.pixels
    height, width, channels = pixels.shape
    tiled = side is not None and len(tile_grid(height, width, side)) > 1
    if channels == 3 and tiled and side is not None:
        restored = restore_tiled(pixels, engine, side)
    elif channels == 3 and pixels.dtype == np.uint8:
        restored = run_engine(engine, pixels[None])[0]
    else:
        planes = to_unit_range(
            np.repeat(pixels, 3, axis=2)[None] if channels == 1 else pixels[None]
        )
        if tiled and side is not None:
            hwc = restore_tiled(planes[0].transpose(1, 2, 0), engine, side)
            planes = hwc.transpose(2, 0, 1)[None]
        else:
            planes = run_engine(engine, planes)
        if channels == 1:
            planes = planes.mean(axis=1, keepdims=True, dtype=np.float64)
        restored = from_unit_range(planes, pixels.dtype, engine.spec.rounding)[0]
    return dataclasses.replace(picture, pixels=restored)


def restore_image(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Literal["auto"] | int | None = "auto",
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Restore a picture file into another, or into itself: see `read_image`, `restore_picture` and
    `write_image` for the arguments and errors. ``target`` is checked before the work begins.
    """
    picture = read_image(source, max_pixels=max_pixels)
    check_target(target, picture)
    write_image(target, restore_picture(picture, engine, tile=tile), quality=quality)
