"""Patches of pictures as engines get them: what calibration and the quality gate look at."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.files import sha256_of
from restorert.pictures.grid import Box, tile_grid
from restorert.pictures.padding import pad
from restorert.pictures.pixels import to_unit_range, with_channels
from restorert.spec import NetworkSpec

PATCH = 256
"""Side in pixels of the patches for networks that their authors test on whole pictures."""


@dataclass(frozen=True)
class Patches:
    """What the network is given for calibration, and what it should make of it.

    Attributes:
        inputs: [1, C, H, W] float32, pictures of range [0, 1] and noise on top; H and W are
            multiples of the network's.
        references: the same without noise where noise was added, else None.
        pictures: file name -> hex SHA-256 of each picture that the patches are from.
        noise: standard deviation of the noise that was added, in levels of 255.
    """

    inputs: tuple[NDArray[np.float32], ...]
    references: tuple[NDArray[np.float32], ...] | None
    pictures: dict[str, str]
    noise: float = 0.0

    def spread(self, most: int) -> Patches:
        """At most ``most`` of the patches, evenly spread over them."""
        count = min(most, len(self.inputs))
        chosen = [i * len(self.inputs) // count for i in range(count)]
        inputs = tuple(self.inputs[i] for i in chosen)
        if self.references is None:
            return replace(self, inputs=inputs)
        return replace(self, inputs=inputs, references=tuple(self.references[i] for i in chosen))


def picture_files(images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The pictures of a folder, or the given files.

    Raises:
        InputError: there are none, or the folder cannot be read.
    """
    from restorert.pictures.files import list_pictures

    if not isinstance(images, (str, os.PathLike)):
        files = [Path(image) for image in images]
    elif Path(images).is_dir():
        files = list_pictures(images)
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
    """Choose patches of pictures, padded as engines pad them.

    The choice depends on the pictures' content and ``count`` alone, not on file names or their
    order. The patches are spread evenly over the pictures, and over each picture.

    Args:
        images: a folder, a picture, or several pictures.
        spec: of the network: its tile, size multiple and padding.
        count: number of patches, >= 1; fewer where the pictures have fewer crops.
        size: side of a patch in pixels, >= 1; None is the network's tile, else `PATCH`.
        noise: standard deviation of the Gaussian noise to add, in levels of 255, for networks that
            remove it; the pictures are then the references.

    Raises:
        InputError: no pictures, a file that cannot be read, or a count, size or noise out of range.
        PictureError: a file that is not a picture.
    """
    # A machine that only builds and runs engines may have no picture codecs.
    from restorert.pictures.files import read_image

    side = size if size is not None else spec.tile or PATCH
    if count < 1 or side < 1 or not 0 <= noise <= 255:
        raise InputError("calibration needs count >= 1, size >= 1 and noise in [0, 255]")
    try:
        files = sorted((sha256_of(path), path) for path in picture_files(images))
    except OSError as error:
        told = f"{error.filename}: {error.strerror or error}"
        raise InputError(f"cannot read picture {told}") from None
    chosen: list[tuple[int, int, Box]] = []  # turn, picture, crop
    for index, (digest, path) in enumerate(files):
        height, width = read_image(path).pixels.shape[:2]
        boxes = tile_grid(height, width, side)
        order = np.random.default_rng(int(digest[:16], 16)).permutation(len(boxes))
        chosen += [(turn, index, boxes[i]) for turn, i in enumerate(order[:count])]
    chosen = sorted(chosen)[:count]
    # Decoded again, one by one: all pictures of a folder at once may not fit into memory.
    crops: dict[tuple[int, int, Box], NDArray[np.float32]] = {}
    for picture in sorted({index for _, index, _ in chosen}):
        pixels = read_image(files[picture][1]).pixels
        planes = with_channels(to_unit_range(pixels), spec.in_channels)
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


def _padded(crop: NDArray[np.float32], spec: NetworkSpec) -> NDArray[np.float32]:
    rows, columns = spec.shape_for(*crop.shape[1:])[2:]
    return np.ascontiguousarray(pad(crop[None], rows, columns, spec.padding_mode))
