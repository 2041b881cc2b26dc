"""Patches of pictures as engines get them: what calibration and the quality gate look at."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.files import sha256_of
from restorert.pictures.degradations import Degradation, degradation
from restorert.pictures.grid import Box, tile_grid
from restorert.pictures.padding import pad
from restorert.pictures.pixels import to_unit_range, with_channels
from restorert.spec import NetworkSpec

PATCH = 256
"""Side in pixels of the patches for networks that their authors test on whole pictures."""

GIVEN = "given"
"""The condition of pictures that are used as they are, and of which nothing else is known."""

JUDGED = 4
"""Patches that each condition is judged on: float32 is slow, and a few pictures are enough."""

_KEPT_OUT_OF = 4  # pictures, one is kept out of the calibration


@dataclass(frozen=True)
class Patches:
    """What the network is given for calibration, and what it should make of it.

    Attributes:
        inputs: [1, C, H, W] float32, degraded pictures of range [0, 1] and beyond; H and W are
            multiples of the network's.
        references: for each the same before it was degraded; None where that is not known.
        conditions: for each the name of its degradation, or "given".
        pictures: file name -> hex SHA-256 of each picture that the patches are from.
        kept_out: patches of other pictures, or of other crops of a single one, to judge on; None
            where there are none.
    """

    inputs: tuple[NDArray[np.float32], ...]
    references: tuple[NDArray[np.float32] | None, ...]
    conditions: tuple[str, ...]
    pictures: dict[str, str]
    kept_out: Patches | None = None

    @classmethod
    def given(cls, inputs: Iterable[NDArray[np.float32]]) -> Patches:
        """Patches in memory, [1, C, H, W] each, of which nothing else is known."""
        kept = tuple(inputs)
        return cls(kept, (None,) * len(kept), (GIVEN,) * len(kept), {})

    @property
    def judged(self) -> Patches:
        """Those that were kept out, or these where none were."""
        return self.kept_out or self

    def take(self, chosen: Iterable[int]) -> Patches:
        """The patches of these indices."""
        indices = list(chosen)
        return replace(
            self,
            inputs=tuple(self.inputs[i] for i in indices),
            references=tuple(self.references[i] for i in indices),
            conditions=tuple(self.conditions[i] for i in indices),
        )

    def by_condition(self) -> dict[str, list[int]]:
        """Condition -> indices of its patches, in the order of their first appearance."""
        found: dict[str, list[int]] = {}
        for index, condition in enumerate(self.conditions):
            found.setdefault(condition, []).append(index)
        return found

    def spread(self, most: int) -> Patches:
        """About ``most`` of the patches: as many of each condition, at least one, evenly spread."""
        groups = self.by_condition().values()
        each = math.ceil(most / max(len(groups), 1))
        chosen: list[int] = []
        for group in groups:
            count = min(each, len(group))
            chosen += [group[i * len(group) // count] for i in range(count)]
        return self.take(sorted(chosen))


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
    conditions: Sequence[str] | None = None,
) -> Patches:
    """Choose patches of pictures, degraded as the network's inputs may be, padded as engines pad.

    The choice depends on the pictures' content and ``count`` alone, not on file names or their
    order. The patches are spread evenly over the pictures, over each picture and over the
    conditions. A quarter of the pictures, at least one, is kept out of the calibration; of a single
    picture a quarter of its crops.

    Args:
        images: a folder, a picture, or several pictures.
        spec: of the network: its tile, size multiple, padding and conditions.
        count: number of patches, >= 1; fewer where the pictures have fewer crops, but one for each
            condition.
        size: side of a patch in pixels, >= 1; None is the network's tile, else `PATCH`.
        conditions: names that `restorert.pictures.degradations.degradation` takes, and "given" for
            pictures as they are; the others need clean pictures. None is ``spec.conditions``.

    Raises:
        InputError: no pictures, a file that cannot be read, a count or size out of range, or an
            unknown condition.
        PictureError: a file that is not a picture.
    """
    # A machine that only builds and runs engines may have no picture codecs.
    from restorert.pictures.files import read_image

    side = size if size is not None else spec.tile or PATCH
    if count < 1 or side < 1:
        raise InputError("calibration needs count >= 1 and size >= 1")
    named = list(dict.fromkeys(spec.conditions if conditions is None else conditions))
    if not named:
        raise InputError("calibration needs at least one condition")
    degradations = {name: degradation(name) for name in named if name != GIVEN}
    try:
        files = sorted((sha256_of(path), path) for path in picture_files(images))
    except OSError as error:
        told = f"{error.filename}: {error.strerror or error}"
        raise InputError(f"cannot read picture {told}") from None
    used: list[tuple[int, int, Box]] = []  # turn, picture, crop
    judged: list[tuple[int, int, Box]] = []
    for index, (digest, path) in enumerate(files):
        height, width = read_image(path).pixels.shape[:2]
        boxes = tile_grid(height, width, side)
        order = np.random.default_rng(int(digest[:16], 16)).permutation(len(boxes)).tolist()
        out = 0
        if len(files) == 1:
            out = math.ceil(len(boxes) / _KEPT_OUT_OF) if len(boxes) > 1 else 0
        elif index % _KEPT_OUT_OF == 1:
            out = len(boxes)
        judged += [(turn, index, boxes[i]) for turn, i in enumerate(order[:out])]
        used += [(turn, index, boxes[i]) for turn, i in enumerate(order[out:][:count])]
    used, judged = sorted(used)[:count], sorted(judged)[:JUDGED]
    # Decoded again, one by one: all pictures of a folder at once may not fit into memory.
    crops: dict[tuple[int, int, Box], NDArray[np.float32]] = {}
    for picture in sorted({index for _, index, _ in (*used, *judged)}):
        pixels = read_image(files[picture][1]).pixels
        planes = with_channels(to_unit_range(pixels), spec.in_channels)
        for key in (*used, *judged):
            if key[1] == picture:
                top, left, bottom, right = key[2]
                crops[key] = np.ascontiguousarray(planes[:, top:bottom, left:right])

    def made(pairs: Sequence[tuple[tuple[int, int, Box], str]]) -> Patches:
        found = [
            _pair(crops[key], name, degradations.get(name), number, spec)
            for number, (key, name) in enumerate(pairs)
        ]
        return Patches(
            tuple(degraded for degraded, _ in found),
            tuple(clean for _, clean in found),
            tuple(name for _, name in pairs),
            {files[index][1].name: files[index][0] for index in sorted({k[1] for k, _ in pairs})},
        )

    # Each round of the conditions begins with another one, or, where there are as many pictures as
    # conditions, a picture would always meet the same one.
    pairs = [
        (used[i % len(used)], named[(i + i // len(named)) % len(named)])
        for i in range(max(len(used), len(named)))
    ]
    kept_out = made([(key, name) for key in judged for name in named]) if judged else None
    return replace(made(pairs), kept_out=kept_out)


def _pair(
    crop: NDArray[np.float32],
    condition: str,
    degrade: Degradation | None,
    number: int,
    spec: NetworkSpec,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """[1, C, H, W] degraded and clean; the latter is None where it is not known."""
    clean = _padded(crop, spec)
    if degrade is None:
        return clean, None
    rng = np.random.default_rng([zlib.crc32(condition.encode()), number])
    degraded = degrade(np.ascontiguousarray(crop.transpose(1, 2, 0)), rng)
    reference = clean if spec.in_channels == spec.out_channels else None
    return _padded(degraded.transpose(2, 0, 1), spec), reference


def _padded(crop: NDArray[np.float32], spec: NetworkSpec) -> NDArray[np.float32]:
    rows, columns = spec.shape_for(*crop.shape[1:])[2:]
    return np.ascontiguousarray(pad(crop[None], rows, columns, spec.padding_mode))
