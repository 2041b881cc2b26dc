"""Conversion between integer pixels [..., H, W, C] and planes [..., C, H, W] in [0, 1].

The whole package converts through these functions, so that all of it rounds alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from restorert.spec import Rounding


def to_unit_range(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Integers [..., H, W, C] over their dtype's range, or floats, as float32 [..., C, H, W]."""
    planes = np.moveaxis(pixels, -1, -3).astype(np.float32, order="C")
    if np.issubdtype(pixels.dtype, np.integer):
        planes /= np.float32(np.iinfo(pixels.dtype).max)
    return planes


def from_unit_range(
    planes: NDArray[Any], dtype: DTypeLike, rounding: Rounding = "nearest"
) -> NDArray[Any]:
    """[..., C, H, W] floats to [..., H, W, C] integers: clamped to [0, 1], scaled and rounded."""
    scaled = np.clip(planes, 0.0, 1.0)
    scaled *= float(np.iinfo(np.dtype(dtype)).max)
    if rounding == "nearest":
        np.rint(scaled, out=scaled)
    return np.ascontiguousarray(np.moveaxis(scaled.astype(dtype), -3, -1))


def with_channels(planes: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """[..., C, H, W] with the channels a network takes: one is the mean, more repeat the given."""
    if channels == planes.shape[-3]:
        return planes
    if channels == 1:
        return planes.mean(axis=-3, keepdims=True)
    return planes[..., np.arange(channels) % planes.shape[-3], :, :]


def to_8_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 or uint16 as uint8, rounded to nearest."""
    if samples.dtype == np.uint8:
        return samples
    # 65535 / 255 = 257 is odd, so no value lies half-way between two.
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
