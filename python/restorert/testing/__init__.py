"""Tolerances, timers and the op runner that tests and benchmarks share."""

from __future__ import annotations

from restorert.testing.errors import max_error, psnr
from restorert.testing.timing import Timing, peak_memory, time_side_by_side

__all__ = ["Timing", "max_error", "peak_memory", "psnr", "time_side_by_side"]
