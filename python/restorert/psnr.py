"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math


def psnr(mean_squared_error: float, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB for pictures in [0, ``peak``]; inf if they are equal."""
    if mean_squared_error == 0:
        return math.inf
    return 10 * math.log10(peak * peak / mean_squared_error)
