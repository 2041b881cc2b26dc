"""Ranges of magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restorert.errors import InputError
from restorert.quantize import METHODS, Histogram

values = st.lists(
    st.floats(0, 1e4, allow_subnormal=False).map(lambda v: v if v > 1e-6 else 0.0),
    min_size=1,
    max_size=60,
)


@given(st.lists(values, min_size=1, max_size=5))
@settings(max_examples=60)
def test_counts_do_not_depend_on_the_order(parts: list[list[float]]) -> None:
    forward, backward = Histogram(), Histogram()
    for part in parts:
        forward.add(np.array(part))
    for part in reversed(parts):
        backward.add(np.array(part))
    joined = np.concatenate([np.array(part) for part in parts])
    for histogram in (forward, backward):
        assert histogram.largest == joined.max()
        assert histogram.limit == forward.limit
        assert np.array_equal(histogram.counts, forward.counts)
        if joined.max() > 0:
            assert histogram.counts.sum() == joined.size
            assert histogram.limit / 2 <= joined.max() < histogram.limit
            expected, _ = np.histogram(joined, Histogram.BINS, (0, histogram.limit))
            assert np.array_equal(histogram.counts, expected)


@given(values, st.sampled_from(METHODS))
@settings(max_examples=60)
def test_a_range_is_within_the_values(found: list[float], method: str) -> None:
    histogram = Histogram()
    histogram.add(np.array(found))
    limit = histogram.range(method)
    assert 0 <= limit <= max(found)
    assert (limit > 0) == (max(found) > 0)


@given(values, st.floats(1, 100))
@settings(max_examples=60)
def test_percentile_by_sorting(found: list[float], percentile: float) -> None:
    histogram = Histogram()
    histogram.add(np.array(found))
    ordered = np.sort(found)
    wanted = ordered[max(int(np.ceil(len(found) * percentile / 100 - 1e-9)) - 1, 0)]
    # within one bin above it
    limit = histogram.range("percentile", percentile)
    assert wanted - 1e-9 <= limit <= wanted + 1.001 * histogram.limit / Histogram.BINS + 1e-9


def _heavy_tailed() -> np.ndarray:
    return np.abs(np.random.default_rng(0).laplace(0, 1, 200_000))


def test_mse_by_trying_every_range() -> None:
    sample = _heavy_tailed()
    histogram = Histogram()
    histogram.add(sample)

    def error(limit: float) -> float:
        scale = limit / 127
        return float(np.square(sample - np.minimum(np.rint(sample / scale), 127) * scale).mean())

    limits = sample.max() * np.linspace(0.15, 1, 200)
    best = min(map(error, limits))
    # measured: 1.0005, since the grid of ranges is finer here
    assert error(histogram.range("mse")) <= 1.002 * best
    assert error(histogram.range("minmax")) > 1.3 * best  # measured: 1.48


def test_entropy_clips_a_tail_and_keeps_a_uniform() -> None:
    histogram = Histogram()
    histogram.add(_heavy_tailed())
    assert histogram.range("entropy") < 0.9 * histogram.largest  # measured: 0.88
    uniform = Histogram()
    uniform.add(np.random.default_rng(0).random(200_000))
    assert uniform.range("entropy") > 0.99  # measured: 1 - 3e-6


def test_extremes_of_a_sample() -> None:
    histogram = Histogram()
    histogram.add(np.array([0.5, 1.0]), largest=9.0)
    assert histogram.range("minmax") == 9.0
    assert 1.0 <= histogram.range("percentile") < 1.01  # measured: 1.004, the end of 1.0's bin
    assert Histogram().range("entropy") == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        Histogram().add(np.array([1.0, bad]))


@pytest.mark.parametrize(
    ("method", "percentile", "message"),
    [("average", 99.0, "unknown method 'average'; expected minmax"), ("minmax", 0.0, "in \\(0")],
)
def test_methods_that_are_none(method: str, percentile: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Histogram().range(method, percentile)
