"""Photographs from a folder, and the training pairs cut from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorert.errors import InputError, PictureError
from restorert.pictures.degradations import Degradation, Picture, convolve, line_kernel, to_unit
from restorert.pictures.files import FORMATS, list_pictures, read_image
from restorert.pictures.pixels import to_8_bits

Levels = NDArray[np.uint8]

LARGEST_SIDE = 2000
"""Pictures are shrunk by whole factors until their longer side is at most this."""


def read_photographs(
    folder: str | os.PathLike[str],
    *,
    largest_side: int = LARGEST_SIDE,
    smallest_side: int = 64,
) -> dict[str, Levels]:
    """The pictures in a folder by file name, in alphabetical order, decoded into memory.

    Photographs from the web carry sensor noise and JPEG artefacts, which a restorer must not learn
    to keep. Averaging n x n pixels reduces both, and packs more detail into each crop.

    Args:
        folder: of PNG, JPEG, WebP and TIFF files; others are ignored.
        largest_side: in pixels; a picture is averaged over n x n pixels, n the smallest whole
            number that makes its longer side fit.
        smallest_side: a picture whose shorter side is then below this is refused.

    Returns:
        [H, W, 3] uint8 RGB each; grey pictures have three equal channels.

    Raises:
        PictureError: the folder is missing or holds no pictures, or one cannot be read or is too
            small; the message names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PictureError(f"{folder}: no such folder of photographs")
    paths = list_pictures(folder)
    if not paths:
        raise PictureError(
            f"{folder}: no pictures in it; put photographs there ({', '.join(FORMATS)})"
        )
    photographs: dict[str, Levels] = {}
    for path in paths:
        levels = _to_rgb8(read_image(path).pixels)
        levels = shrink(levels, -(-max(levels.shape[:2]) // largest_side))
        if min(levels.shape[:2]) < smallest_side:
            raise PictureError(
                f"{path}: {levels.shape[1]}x{levels.shape[0]} is too small for crops of "
                f"{smallest_side} pixels; remove it from the folder"
            )
        photographs[path.name] = levels
    return photographs


def _to_rgb8(pixels: NDArray[Any]) -> Levels:
    levels = to_8_bits(pixels)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def shrink(levels: Levels, factor: int) -> Levels:
    """Means over ``factor`` x ``factor`` pixels, rounded; incomplete blocks are cut off."""
    if factor <= 1:
        return levels
    height, width = (side // factor for side in levels.shape[:2])
    cut = levels[: height * factor, : width * factor]
    blocks = cut.reshape(height, factor, width, factor, levels.shape[2])
    # Row by row: the mean of a whole large picture in float64 would take gigabytes.
    total = blocks.sum(axis=3, dtype=np.uint32).sum(axis=1, dtype=np.uint32)
    return np.rint(total / (factor * factor)).astype(np.uint8)


@dataclass(frozen=True)
class Batch:
    """The pairs of one step, float32.

    Attributes:
        degraded, clean: [N, 3, H, W]; the clean ones in [0, 1].
        labels: [N] int64, the index of each pair's degradation.
    """

    degraded: Tensor
    clean: Tensor
    labels: Tensor


class Pairs:
    """Batches of clean and degraded crops, each a pure function of seed and step.

    A resumed run therefore sees the pairs it would have seen, with no random state to save.
    Photographs are used at full, half and quarter size, where crops fit. Of ``candidates`` random
    positions the one with the most detail is cut (most of a photograph is sky and bokeh, which take
    few steps to learn), except in the share ``anywhere``. Crops are rotated and mirrored; some have
    their channels permuted, some their exposure reduced.

    Photographs of nature are softer than man-made things, and a restorer that has seen nothing else
    removes wires, railings and wood grain as noise. Unless ``hardened`` is False, shares of the
    crops are therefore sharpened, joined from two along a straight edge, crossed by drawn lines, or
    overlaid with grain.
    """

    candidates = 3
    anywhere = 0.3
    sharpened = 0.3
    joined = 0.2
    lined = 0.25
    grained = 0.2

    def __init__(
        self,
        photographs: Sequence[Levels],
        degradations: Sequence[Degradation],
        *,
        shares: Sequence[float] | None = None,
        hardened: bool = True,
        darkened: tuple[float, float] = (0.3, 0.5),
        seed: int = 0,
    ) -> None:
        """Keep the photographs at full, half and quarter size.

        Args:
            photographs: [H, W, 3] uint8 RGB each.
            degradations: one is drawn for each crop; its index is the crop's label.
            shares: relative frequencies of the degradations, > 0; None for equal ones.
            hardened: whether crops get hard edges, see the class.
            darkened: the share of crops with reduced exposure, and the smallest factor.
            seed: of everything drawn.

        Raises:
            InputError: no photographs or degradations, or ``shares`` of another length or not > 0.
        """
        if not photographs or not degradations:
            raise InputError("training pairs need at least one photograph and one degradation")
        weights = np.asarray(shares if shares is not None else [1.0] * len(degradations), float)
        if len(weights) != len(degradations) or not (weights > 0).all():
            raise InputError(
                f"{len(degradations)} degradations need as many shares > 0, not {shares}"
            )
        self.degradations = tuple(degradations)
        self.shares = weights / weights.sum()
        self.seed = seed
        self.hardened = hardened
        self.darkened = darkened
        self.pictures = [shrink(picture, n) for n in (1, 2, 4) for picture in photographs]

    def batch(self, step: int, count: int, patch: int) -> Batch:
        """The pairs of one step.

        Args:
            step: its number, >= 0.
            count: N, pairs in the batch.
            patch: H and W in pixels.

        Raises:
            InputError: no photograph is as large as the patch.
        """
        fitting = [picture for picture in self.pictures if min(picture.shape[:2]) >= patch]
        if not fitting:
            raise InputError(f"no photograph has {patch} pixels on its shorter side")
        # The root of the area, so that one large photograph does not dominate.
        sides = np.sqrt([picture.shape[0] * picture.shape[1] for picture in fitting])
        chances = sides / sides.sum()
        clean = np.empty((count, patch, patch, 3), np.float32)
        degraded = np.empty_like(clean)
        labels = np.empty(count, np.int64)
        for place in range(count):
            rng = np.random.default_rng((self.seed, step, place))
            clean[place] = self._crop(partial(self._cut, fitting, chances, patch, rng), rng)
            label = int(rng.choice(len(self.degradations), p=self.shares))
            degraded[place] = self.degradations[label](clean[place], rng)
            labels[place] = label
        return Batch(planes(degraded), planes(clean), torch.from_numpy(labels))

    def _crop(self, cut: Callable[[], Picture], rng: np.random.Generator) -> Picture:
        crop = cut()
        if self.hardened:
            if rng.random() < self.joined:
                crop = _joined(crop, cut(), rng)
            if rng.random() < self.sharpened:
                crop = _sharpened(crop, rng)
            if rng.random() < self.lined:
                crop = _lined(crop, rng)
            if rng.random() < self.grained:
                crop = _grained(crop, rng)
        if rng.random() < 0.5:
            crop = crop[..., rng.permutation(3)]
        share, least = self.darkened
        if rng.random() < share:
            crop = np.float32(rng.uniform(least, 1.0)) * crop
        return np.asarray(crop, np.float32)

    def _cut(
        self,
        pictures: Sequence[Levels],
        chances: NDArray[Any],
        patch: int,
        rng: np.random.Generator,
    ) -> Picture:
        picture = pictures[int(rng.choice(len(pictures), p=chances))]
        tries = 1 if rng.random() < self.anywhere else self.candidates
        best, most = picture[:patch, :patch], -1.0
        for _ in range(tries):
            top = int(rng.integers(picture.shape[0] - patch + 1))
            left = int(rng.integers(picture.shape[1] - patch + 1))
            crop = picture[top : top + patch, left : left + patch]
            detail = float(np.abs(np.diff(crop[::2, :, 1].astype(np.int16), axis=1)).mean())
            if detail > most:
                best, most = crop, detail
        turned = np.rot90(best, int(rng.integers(4)))
        if rng.random() < 0.5:
            turned = turned[:, ::-1]
        return to_unit(turned)


def _sharpened(crop: Picture, rng: np.random.Generator) -> Picture:
    """Unsharp masking with a blur of 3x3 pixels."""
    padded = np.pad(crop, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / np.float32(16)
    return np.clip(crop + np.float32(rng.uniform(0.3, 1.5)) * (crop - smooth), 0, 1)


def _lined(crop: Picture, rng: np.random.Generator) -> Picture:
    """One to four straight lines or sets of parallel ones over the crop, half a pixel soft."""
    side = crop.shape[0]
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    for _ in range(int(rng.integers(1, 5))):
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.9, size=2) * side
        distance = (rows - offset[0]) * np.float32(np.sin(angle))
        distance += (columns - offset[1]) * np.float32(np.cos(angle))
        width = rng.uniform(0.6, 4.0)
        if rng.random() < 0.4:
            period = np.float32(width + rng.uniform(1.5, 12.0))
            distance -= period * np.rint(distance / period)
        opacity = rng.uniform(0.15, 1.0)
        share = np.clip(np.float32(width / 2 + 0.5) - np.abs(distance), 0, min(width, 1))
        share = (share * np.float32(opacity))[..., None]
        # Mostly a shade of the crop's own colour: photographs have few edges in colour alone.
        kind, place = rng.random(), rng.integers(side, size=2)
        if kind < 0.2:
            colour = rng.random(3)
        elif kind < 0.5:
            colour = crop[place[0], place[1]]
        else:
            colour = np.clip(crop.mean(axis=(0, 1)) * rng.uniform(0.0, 2.5), 0, 1)
        crop = crop * (1 - share) + np.asarray(colour, np.float32) * share
    return crop


def _grained(crop: Picture, rng: np.random.Generator) -> Picture:
    """Brightness modulated by streaks of one direction, like wood, fur and fabric."""
    side = crop.shape[0]
    kernel = line_kernel(rng.uniform(2.0, 24.0), rng.uniform(0, 180))
    streaks = convolve(rng.standard_normal((side, side, 1), dtype=np.float32), kernel)
    streaks *= np.float32(rng.uniform(0.05, 0.35) / max(float(streaks.std()), 1e-6))
    return np.clip(crop * (1 + streaks), 0, 1)


def _joined(one: Picture, other: Picture, rng: np.random.Generator) -> Picture:
    """Two crops on either side of a random straight line, one pixel soft."""
    side = one.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    through = rng.uniform(0.2, 0.8, size=2) * side
    rows, columns = np.mgrid[:side, :side]
    distance = (rows - through[0]) * np.sin(angle) + (columns - through[1]) * np.cos(angle)
    share = np.clip(distance + 0.5, 0, 1)[..., None]
    return np.asarray(one * share + other * (1 - share), np.float32)


def planes(pictures: NDArray[np.float32]) -> Tensor:
    """[N, H, W, C] as [N, C, H, W], on the same memory."""
    # NHWC memory viewed as NCHW is channels_last, the fastest layout for convolutions.
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
