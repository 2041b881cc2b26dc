"""The scaling between integers and [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from restorert.spec import Rounding


def to_unit_range(frames: NDArray[Any]) -> NDArray[np.float32]:
    """[N, H, W, C] integers over their dtype's range, or floats, to [N, C, H, W] in [0, 1]."""
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32)
    if np.issubdtype(frames.dtype, np.integer):
        planes /= np.float32(np.iinfo(frames.dtype).max)
    return planes


def from_unit_range(
    planes: NDArray[Any], dtype: DTypeLike, rounding: Rounding = "nearest"
) -> NDArray[Any]:
    """[N, C, H, W] floats to [N, H, W, C] integers: clamped to [0, 1], then rounded."""
    scaled = np.clip(planes, 0.0, 1.0) * float(np.iinfo(np.dtype(dtype)).max)
    whole = np.rint(scaled) if rounding == "nearest" else scaled
    return np.ascontiguousarray(whole.astype(dtype).transpose(0, 2, 3, 1))
