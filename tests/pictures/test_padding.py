"""Padding against numpy.pad."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restorert.pictures.padding import pad, source_indices
from restorert.spec import padded_size

MODES = ("reflect", "edge")


@given(st.integers(1, 40), st.integers(0, 200), st.sampled_from(MODES))
def test_indices(size: int, grown: int, mode: str) -> None:
    found = source_indices(size, size + grown, mode)
    np.testing.assert_array_equal(found, np.pad(np.arange(size), (0, grown), mode=mode))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30), st.integers(0, 30)),
    st.sampled_from(MODES),
)
def test_pictures(sizes: tuple[int, int, int, int], mode: str) -> None:
    height, width, below, right = sizes
    x = np.random.default_rng(0).random((2, 3, height, width), dtype=np.float32)
    found = pad(torch.from_numpy(x), height + below, width + right, mode).numpy()
    expected = np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), mode=mode)
    np.testing.assert_array_equal(found, expected)


def test_nothing_to_pad_is_no_copy() -> None:
    x = torch.rand(1, 3, 8, 8)
    assert pad(x, 8, 8, "reflect").data_ptr() == x.data_ptr()


@given(st.integers(1, 10_000), st.integers(1, 64), st.integers(1, 10_000))
def test_padded_size(size: int, multiple: int, smallest: int) -> None:
    found = padded_size(size, multiple, smallest)
    assert found % multiple == 0
    assert found >= max(size, smallest)
    assert found - multiple < max(size, smallest)


@pytest.mark.parametrize("mode", MODES)
def test_one_pixel(mode: str) -> None:
    assert source_indices(1, 5, mode).tolist() == [0] * 5
