"""Synthetic degradations of clean pictures: for training, for calibration and for judging.

Each is a frozen dataclass of ranges, called as ``(picture, rng) -> picture``: float32 [H, W, C] in
[0, 1] in and out, RGB or grey; the input is not changed. All randomness comes from ``rng``, so a
seed gives the same pair on every machine that rounds alike. Ranges are (smallest, largest), drawn
uniformly.

`degradation` makes one from its name, such as "sigma 15 + jpeg 50": the conditions of
`NetworkSpec.conditions`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError, printable

Picture = NDArray[np.float32]
Range = tuple[float, float]


class Degradation(Protocol):
    """A function from a clean picture to a degraded one."""

    def __call__(self, picture: Picture, rng: np.random.Generator, /) -> Picture:
        """Degrade [H, W, C] float32 in [0, 1]."""


class _Ranges:
    """A dataclass of ranges, which are checked when it is made.

    Raises:
        InputError: a range that is empty or outside ``limits``.
    """

    limits: ClassVar[Mapping[str, Range]] = {}

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            low, high = self.limits.get(field.name, (-math.inf, math.inf))
            value = getattr(self, field.name)
            first, last = value if isinstance(value, tuple) else (value, value)
            if not low <= first <= last <= high:
                raise InputError(
                    f"{type(self).__name__}: {field.name} must be a range within "
                    f"{low:g} to {high:g}, not {value}"
                )


@dataclass(frozen=True)
class GaussianNoise(_Ranges):
    """White Gaussian noise, of one strength in all channels and independent in each.

    Attributes:
        sigma: standard deviation in levels of 255, 0 to 255.
        rounded: share of the pictures that are then clamped and rounded to 8 bits, as in files; the
            others keep every value, as in benchmarks of denoising.
    """

    sigma: Range = (0.0, 50.0)
    rounded: float = 0.5

    limits: ClassVar[Mapping[str, Range]] = {"sigma": (0.0, 255.0), "rounded": (0.0, 1.0)}

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        sigma = np.float32(rng.uniform(*self.sigma) / 255)
        noisy = picture + sigma * rng.standard_normal(picture.shape, dtype=np.float32)
        return to_8_bits(noisy) if rng.random() < self.rounded else noisy


@dataclass(frozen=True)
class Jpeg(_Ranges):
    """Compression by libjpeg, through Pillow.

    Attributes:
        quality: Pillow's, 1 to 100; a whole number is drawn, both ends included.
        full_colour: share of the pictures with full chroma resolution (4:4:4 instead of 4:2:0).
    """

    quality: tuple[int, int] = (30, 95)
    full_colour: float = 0.25

    limits: ClassVar[Mapping[str, Range]] = {"quality": (1, 100), "full_colour": (0.0, 1.0)}

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        from PIL import Image

        if picture.shape[2] not in (1, 3):
            raise InputError(f"JPEG holds 1 or 3 channels, not {picture.shape[2]}")
        grey = picture.shape[2] == 1
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        subsampling = 0 if rng.random() < self.full_colour else 2
        levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        stream = io.BytesIO()
        image = Image.fromarray(levels[..., 0] if grey else levels)
        image.save(stream, "JPEG", quality=quality, subsampling=subsampling)
        decoded = np.asarray(Image.open(stream).convert("L" if grey else "RGB"))
        return to_unit(decoded[..., None] if grey else decoded)


@dataclass(frozen=True)
class GaussianBlur(_Ranges):
    """Defocus, as a Gaussian.

    Attributes:
        sigma: in pixels, > 0.
    """

    sigma: Range = (1.0, 3.0)

    limits: ClassVar[Mapping[str, Range]] = {"sigma": (1e-3, 50.0)}

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        sigma = rng.uniform(*self.sigma)
        radius = max(1, math.ceil(3 * sigma))
        line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        return convolve(picture, np.outer(line, line) / line.sum() ** 2)


@dataclass(frozen=True)
class MotionBlur(_Ranges):
    """Straight, uniform motion of the camera during the exposure.

    Attributes:
        length: of the path in pixels, >= 1.
        angle: of the path in degrees, 0 to the right, 90 up.
    """

    length: Range = (7.0, 19.0)
    angle: Range = (0.0, 180.0)

    limits: ClassVar[Mapping[str, Range]] = {"length": (1.0, 200.0)}

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        return convolve(picture, line_kernel(rng.uniform(*self.length), rng.uniform(*self.angle)))


@dataclass(frozen=True)
class RainStreaks(_Ranges):
    """Bright streaks: sparse drops, blurred along the direction of their fall.

    As the synthetic rain of Rain100 (Yang et al., CVPR 2017), but blended as
    1 - (1 - picture)(1 - rain), which stays in [0, 1].

    Attributes:
        density: drops per pixel.
        length: of a streak in pixels.
        angle: degrees from the vertical.
        strength: brightness of a streak, 0 to 1.
    """

    density: Range = (0.004, 0.015)
    length: Range = (11.0, 25.0)
    angle: Range = (-30.0, 30.0)
    strength: Range = (0.5, 0.95)

    limits: ClassVar[Mapping[str, Range]] = {
        "density": (0.0, 1.0),
        "length": (1.0, 200.0),
        "strength": (0.0, 1.0),
    }

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        density = rng.uniform(*self.density)
        kernel = line_kernel(rng.uniform(*self.length), 90.0 + rng.uniform(*self.angle))
        strength = rng.uniform(*self.strength)
        # With drops outside the picture, whose streaks reach in.
        margin = kernel.shape[0] // 2
        drops = rng.random((height + 2 * margin, width + 2 * margin, 1), dtype=np.float32)
        drops = np.where(drops < density, 0.5 + drops / max(density, 1e-9) / 2, 0.0)
        streaks = convolve(drops.astype(np.float32), kernel / kernel.max())
        streaks = streaks[margin : margin + height, margin : margin + width]
        rain = np.float32(strength) * np.minimum(streaks, 1.0)
        return _float32(1.0 - (1.0 - picture) * (1.0 - rain))


@dataclass(frozen=True)
class Haze(_Ranges):
    """Atmospheric scattering: J t + A (1 - t), t = exp(-beta d) (Koschmieder, 1924).

    The depth d is a smooth random field in [0, 1]; ranges of A and beta follow RESIDE (Li et al.,
    TIP 2019).

    Attributes:
        scattering: beta.
        airlight: A, grey, 0 to 1.
    """

    scattering: Range = (0.8, 2.0)
    airlight: Range = (0.7, 1.0)

    limits: ClassVar[Mapping[str, Range]] = {"scattering": (0.0, 100.0), "airlight": (0.0, 1.0)}

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        beta, airlight = rng.uniform(*self.scattering), rng.uniform(*self.airlight)
        depth = 0.4 + 0.6 * smooth_field(picture.shape[0], picture.shape[1], rng)
        transmission = np.exp(-beta * depth)[..., None]
        return _float32(picture * transmission + airlight * (1.0 - transmission))


@dataclass(frozen=True)
class LowLight(_Ranges):
    """Too little light: a gain, a gamma, and the noise that dark pictures show.

    After Lv et al. (MBLLEN, BMVC 2018): ``(gain * picture) ** gamma``.

    Attributes:
        gain: 0 to 1.
        gamma: > 1 darkens.
        sigma: of the noise, in levels of 255.
    """

    gain: Range = (0.5, 0.9)
    gamma: Range = (2.0, 3.5)
    sigma: Range = (1.0, 5.0)

    limits: ClassVar[Mapping[str, Range]] = {
        "gain": (0.0, 1.0),
        "gamma": (0.1, 10.0),
        "sigma": (0.0, 255.0),
    }

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        gain, gamma = rng.uniform(*self.gain), rng.uniform(*self.gamma)
        dark = np.power(np.float32(gain) * np.clip(picture, 0, 1), np.float32(gamma))
        sigma = rng.uniform(*self.sigma) / 255
        return _float32(dark + sigma * rng.standard_normal(picture.shape, dtype=np.float32))


@dataclass(frozen=True)
class Chain:
    """Several degradations, one after the other.

    Attributes:
        parts: the degradations, in order.
    """

    parts: tuple[Degradation, ...]

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        for part in self.parts:
            picture = part(picture, rng)
        return picture


_NUMBERED: dict[str, tuple[Range, Callable[[float], Degradation]]] = {
    "sigma": ((0, 255), lambda value: GaussianNoise((value, value), rounded=0.0)),
    "jpeg": ((1, 100), lambda value: Jpeg((int(value), int(value)), full_colour=0.0)),
    "blur": ((0.1, 50), lambda value: GaussianBlur((value, value))),
    "motion": ((1, 200), lambda value: MotionBlur((value, value))),
}
_NAMED: dict[str, Callable[[], Degradation]] = {
    "clean": lambda: Chain(()),
    "rain": RainStreaks,
    "haze": Haze,
    "low light": LowLight,
}


def degradation(name: str) -> Degradation:
    """The degradation of a name; " + " between names applies one after the other.

    Args:
        name: "sigma S" (Gaussian noise, standard deviation in levels of 255), "jpeg Q" (quality,
            4:2:0), "blur S" (Gaussian, pixels), "motion L" (length in pixels, any direction),
            "rain", "haze", "low light", or "clean".

    Raises:
        InputError: another name, or a number out of range.
    """
    parts = [part.strip() for part in name.split("+")]
    if len(parts) > 1:
        return Chain(tuple(degradation(part) for part in parts))
    if name.strip() in _NAMED:
        return _NAMED[name.strip()]()
    kind, _, number = name.strip().partition(" ")
    if kind not in _NUMBERED:
        known = ", ".join([*(f"{word} N" for word in _NUMBERED), *_NAMED])
        raise InputError(f"unknown condition {printable(repr(name)[:60])}; expected {known}")
    (low, high), make = _NUMBERED[kind]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"{kind} takes a number from {low:g} to {high:g}, not {number[:20]!r}")
    return make(value)


def dcpt_degradations() -> dict[str, Degradation]:
    """The five degradations of DCPT's all-in-one task, named and ordered as in `CLASSES`."""
    return {
        "rain": RainStreaks(),
        "noise": GaussianNoise((15.0, 50.0), rounded=0.0),
        "haze": Haze(),
        "motion blur": MotionBlur(),
        "low light": LowLight(),
    }


def line_kernel(length: float, angle: float) -> NDArray[np.float64]:
    """A straight path as a kernel: [side, side], side odd, centred, with the sum 1.

    Args:
        length: in pixels, >= 1.
        angle: degrees, 0 to the right, 90 up.
    """
    radius = math.ceil((length - 1) / 2)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    samples = 8 * math.ceil(length) + 1
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, samples)
    rows = radius - along * math.sin(math.radians(angle))
    columns = radius + along * math.cos(math.radians(angle))
    # Each sample is distributed over the four pixels around it.
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for row, column, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        inside = (row >= 0) & (row <= 2 * radius) & (column >= 0) & (column <= 2 * radius)
        np.add.at(kernel, (row[inside], column[inside]), weight[inside])
    return kernel / kernel.sum()


def smooth_field(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """[H, W]: random values at 4x4 points, interpolated linearly and scaled to the range [0, 1]."""
    coarse = rng.random((4, 4))
    rows = np.linspace(0, 3, height)
    columns = np.linspace(0, 3, width)
    across = np.stack([np.interp(columns, np.arange(4), line) for line in coarse])
    field = np.stack([np.interp(rows, np.arange(4), line) for line in across.T], axis=1)
    low, high = field.min(), field.max()
    return np.asarray((field - low) / max(high - low, 1e-9))


def to_8_bits(picture: NDArray[Any]) -> Picture:
    """Clamp to [0, 1] and round to the 256 levels of a file, as float32."""
    return to_unit(np.rint(np.clip(picture, 0, 1) * 255))


def to_unit(levels: NDArray[Any]) -> Picture:
    """The 256 levels of a file as float32 in [0, 1]."""
    return np.asarray(levels, np.float32) / np.float32(255)


def _float32(picture: NDArray[Any]) -> Picture:
    return np.asarray(picture, np.float32)


def convolve(picture: Picture, kernel: NDArray[Any]) -> Picture:
    """Convolve each channel with a kernel of odd side; border pixels are repeated."""
    import torch
    import torch.nn.functional as F

    # conv2d is a correlation: it does not flip the kernel.
    weight = torch.from_numpy(np.ascontiguousarray(kernel[::-1, ::-1], np.float32))[None, None]
    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[:, None]
    pad = kernel.shape[0] // 2
    blurred = F.conv2d(F.pad(planes, (pad, pad, pad, pad), mode="replicate"), weight)
    return np.ascontiguousarray(blurred[:, 0].numpy().transpose(1, 2, 0))
