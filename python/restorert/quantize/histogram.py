"""Histograms of magnitudes, and the range that int8 takes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.quantize.qdq import LEVELS

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99


def check_method(method: str, percentile: float) -> None:
    """Raise InputError for an unknown method or a percentile that is not in (0, 100]."""
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; expected {', '.join(METHODS)}")
    if not 0 < percentile <= 100:
        raise InputError(f"percentile is {percentile}; it must be in (0, 100]")


class Histogram:
    """Counts of magnitudes in equal bins of [0, limit).

    The limit is a power of two. It doubles when a value reaches it, which merges pairs of bins, so
    that the counts do not depend on the order of the values.
    """

    BINS = 4096

    def __init__(self) -> None:
        self.counts = np.zeros(self.BINS, np.int64)
        self.limit = 2.0**-24  # what float16 takes for zero
        self.largest = 0.0

    def add(self, magnitudes: NDArray[Any], largest: float | None = None) -> None:
        """Count magnitudes; ``largest`` is that of all values where these are a sample.

        Raises:
            InputError: NaN or infinity.
        """
        top = max(float(magnitudes.max(initial=0.0)), largest or 0.0)
        if not np.isfinite(top):
            raise InputError("an activation is not finite: the network overflows on these pictures")
        self.largest = max(self.largest, top)
        while top >= self.limit:
            half = self.BINS // 2
            self.counts[:half] = self.counts.reshape(half, 2).sum(axis=1)
            self.counts[half:] = 0
            self.limit *= 2
        bins = (magnitudes * (self.BINS / self.limit)).astype(np.int64)
        self.counts += np.bincount(bins, minlength=self.BINS)

    def range(self, method: str, percentile: float = PERCENTILE) -> float:
        """The magnitude that int8's 127 stands for, in (0, largest]; 0 where all values are 0.

        Args:
            method: one of `METHODS`. minmax: the largest magnitude. percentile: that percentile of
                the magnitudes. mse: least mean squared error of the quantised values. entropy:
                least Kullback-Leibler divergence of their distribution (Migacz, "8-bit Inference
                with TensorRT", 2017).
            percentile: in (0, 100].

        Raises:
            InputError: see `check_method`.
        """
        check_method(method, percentile)
        if method == "minmax" or self.largest == 0.0 or not self.counts.any():
            return self.largest
        if method == "percentile":
            found = self._percentile(percentile)
        else:
            found = self._mse() if method == "mse" else self._entropy()
        return min(found, self.largest)

    def _percentile(self, percentile: float) -> float:
        total = self.counts.cumsum()
        index = int(np.searchsorted(total, total[-1] * (percentile / 100.0)))
        return float((index + 1) * self.limit / self.BINS)

    def _mse(self) -> float:
        centres = (np.arange(self.BINS) + 0.5) * (self.limit / self.BINS)
        candidates = self.largest * np.arange(20, 129) / 128.0
        filled = self.counts > 0
        values, weights = centres[filled], self.counts[filled]
        errors = []
        for candidate in candidates:
            scale = candidate / LEVELS
            restored = np.minimum(np.rint(values / scale), LEVELS) * scale
            errors.append(float((weights * (values - restored) ** 2).sum()))
        # The last of equal errors: a larger range clips fewer of the values yet to come.
        return float(candidates[::-1][int(np.argmin(errors[::-1]))])

    def _entropy(self) -> float:
        levels = LEVELS + 1
        counts = self.counts.astype(np.float64)
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        best, best_bins = np.inf, last
        for bins in range(levels, last + 1, self.BINS // 256):
            reference = counts[:bins].copy()
            reference[-1] += counts[bins:].sum()
            edges = (np.arange(levels) * bins) // levels
            filled = counts[:bins] > 0
            sums = np.add.reduceat(counts[:bins], edges)
            members = np.add.reduceat(filled.astype(np.float64), edges)
            widths = np.diff([*edges, bins])
            mean = np.repeat(sums / np.maximum(members, 1), widths)
            approximated = np.where(filled, mean, 0.0)
            divergence = _divergence(reference, approximated)
            if divergence <= best:
                best, best_bins = divergence, bins
        return float(best_bins * self.limit / self.BINS)


def _divergence(p: NDArray[Any], q: NDArray[Any]) -> float:
    """KL(p || q) of counts, smoothed where q has none."""
    if not q.any():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    at = p > 0
    return float((p[at] * np.log(p[at] / np.maximum(q[at], 1e-9))).sum())
