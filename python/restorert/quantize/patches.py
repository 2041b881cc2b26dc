"""Patches of pictures, as the runner feeds them: what calibration and the quality gate look at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.files import sha256_of
from restorert.pictures.files import FORMATS, read_image
from restorert.pictures.grid import Box, tile_grid
from restorert.pictures.padding import pad
from restorert.quantize.calibration import Patches
from restorert.spec import NetworkSpec, padded_size

PATCH = 256
"""Side in pixels of patches of networks that their authors test on whole pictures."""


def picture_files(images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The pictures of a folder, or the given files.

    Raises:
        InputError: there are none, or the folder cannot be read.
    """
    if not isinstance(images, (str, os.PathLike)):
        files = [Path(image) for image in images]
    elif Path(images).is_dir():
        files = sorted(p for p in Path(images).iterdir() if p.suffix.lower() in FORMATS)
    else:
        files = [Path(images)]
    if not files:
        raise InputError(f"no pictures to calibrate with in {images}")
    return files


def read_patches(
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    spec: NetworkSpec,
    count: int = 64,
    *,
    size: int | None = None,
    noise: float = 0.0,
) -> Patches:
    """Choose patches of pictures, padded as the runner pads them.

    Which patches depends on the pictures' content and ``count`` alone: not on names, on the
    folder's order, or on the time. They are spread evenly over the pictures, and over each picture.

    Args:
        images: a folder, a picture, or several pictures.
        spec: of the network: its tile, size multiple and padding.
        count: of patches, >= 1; fewer where the pictures have fewer crops.
        size: side of a patch in pixels; None is the network's tile, else `PATCH`.
        noise: standard deviation of Gaussian noise to add, in levels of 255, for networks that
            remove it; the pictures are then the references.

    Raises:
        InputError: no pictures, or a count, size or noise out of range.
        PictureError: a file that is no picture.
    """
    side = size if size is not None else spec.tile or PATCH
    if count < 1 or side < 1 or not 0 <= noise <= 255:
        raise InputError("calibration needs count >= 1, size >= 1 and noise in [0, 255]")
    files = sorted((sha256_of_picture(path), path) for path in picture_files(images))
    chosen: list[tuple[int, int, Box]] = []  # round, picture, crop
    for index, (digest, path) in enumerate(files):
        height, width = read_image(path).pixels.shape[:2]
        boxes = tile_grid(height, width, side)
        order = np.random.default_rng(int(digest[:16], 16)).permutation(len(boxes))
        chosen += [(turn, index, boxes[i]) for turn, i in enumerate(order[:count])]
    chosen = sorted(chosen)[:count]
    # Decoded again, since all pictures of a folder at once may be more than memory holds.
    crops: dict[tuple[int, int, Box], NDArray[np.float32]] = {}
    for picture in sorted({index for _, index, _ in chosen}):
        planes = _planes(read_image(files[picture][1]).pixels, spec.in_channels)
        for key in chosen:
            if key[1] == picture:
                top, left, bottom, right = key[2]
                crops[key] = np.ascontiguousarray(planes[:, top:bottom, left:right])
    clean = [_padded(crops[key], spec) for key in chosen]
    inputs = clean
    if noise:
        generators = [np.random.default_rng([int(noise * 1000), i]) for i in range(len(chosen))]
        inputs = [
            _padded((crop + g.normal(0, noise / 255, crop.shape)).astype(np.float32), spec)
            for crop, g in zip((crops[key] for key in chosen), generators, strict=True)
        ]
    references = tuple(clean) if noise and spec.in_channels == spec.out_channels else None
    return Patches(tuple(inputs), references, {path.name: d for d, path in files}, noise)


def sha256_of_picture(path: Path) -> str:
    """Hex SHA-256 of a picture's file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"cannot read picture {path}: {error.strerror or error}") from None


def _planes(pixels: NDArray[Any], channels: int) -> NDArray[np.float32]:
    """[H, W, C] integers -> [channels, H, W] in [0, 1]; grey is their mean, more repeat them."""
    planes = pixels.transpose(2, 0, 1).astype(np.float32) / np.iinfo(pixels.dtype).max
    if channels == 1:
        planes = planes.mean(axis=0, keepdims=True)
    return planes[np.arange(channels) % planes.shape[0]]


def _padded(crop: NDArray[np.float32], spec: NetworkSpec) -> NDArray[np.float32]:
    rows, columns = (padded_size(size, spec.size_multiple) for size in crop.shape[1:])
    padded: NDArray[np.float32] = pad(crop[None], rows, columns, spec.padding_mode)
    return np.ascontiguousarray(padded)
