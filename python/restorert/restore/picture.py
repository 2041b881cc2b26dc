"""Restoring one picture."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.pictures.files import MAX_PIXELS, check_target, read_image, write_image
from restorert.pictures.grid import Tile, overlap_of, tile_side
from restorert.pictures.picture import Picture
from restorert.pictures.pixels import from_unit_range, to_unit_range, with_channels
from restorert.restore.protocol import Engine, memory_errors_of, run_engine
from restorert.restore.tiles import restore_tiled


def restore_picture(
    picture: Picture, engine: Engine, *, tile: Tile = "auto", overlap: int | None = None
) -> Picture:
    """Restore a picture; alpha, profile, EXIF and resolution are kept as they are.

    8-bit colour goes to the engine as uint8 and comes back rounded. 16 bits, grey and tiles go as
    float32 and are clamped and rounded once, here (``engine.spec.rounding``). Grey is replicated to
    three channels and the three results are averaged.

    Args:
        picture: what to restore.
        engine: see `Engine`.
        tile: side in pixels of crops that are restored apart and blended where they overlap;
            "auto" for the side that the network's authors test with (``engine.spec.tile``),
            "authors" for their grid as well, whose crops may touch without overlap, None for the
            picture as a whole.
        overlap: least number of pixels that neighbouring crops share, from 0 to half of the side;
            None for an eighth of it.

    Raises:
        InputError: the network does not map three channels to three; ``tile`` or ``overlap`` is
            not valid.
        RestorertError: the engine broke its protocol, or its result is not finite.
    """
    pixels = picture.pixels
    grey = pixels.shape[2] == 1
    side = tile_side(tile, engine.spec)
    shared = overlap_of(tile, side, overlap)
    if side is not None and max(pixels.shape[:2]) <= side:
        side = None
    if side is None and not grey and pixels.dtype == np.uint8:
        restored = run_engine(engine, pixels[None])[0]
    else:
        planes: NDArray[Any] = with_channels(to_unit_range(pixels), 3)
        if side is None:
            planes = run_engine(engine, planes[None])[0]
        else:
            planes = restore_tiled(planes, engine, side, overlap=shared)
        if grey:
            # Rounded to float32 first, as the engine returns whole pictures.
            planes = np.asarray(planes, np.float32).mean(axis=0, keepdims=True, dtype=np.float64)
        restored = from_unit_range(planes, pixels.dtype, engine.spec.rounding)
    return dataclasses.replace(picture, pixels=restored)


def restore_image(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Tile = "auto",
    overlap: int | None = None,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Restore a picture file into another, or into itself.

    See `read_image`, `restore_picture` and `write_image` for the arguments and errors. ``target``
    is checked before the work begins.

    Raises:
        DeviceMemoryError: not enough memory for this picture, on the device or the host.
    """
    picture = read_image(source, max_pixels=max_pixels)
    check_target(target, picture)
    with memory_errors_of(source):
        restored = restore_picture(picture, engine, tile=tile, overlap=overlap)
    write_image(target, restored, quality=quality)
