"""Conversions between integer pixels and planes in [0, 1], against float64 and by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from restorert.pictures.pixels import (
    from_unit_range,
    to_8_bits,
    to_unit_range,
    with_channels,
)

DTYPES = [np.uint8, np.uint16]


@pytest.mark.parametrize(
    "module",
    [
        "pictures",
        "pictures.pixels",
        "restore",
        "restore.folder",
        "restore.video",
        "restore.classify",
    ],
)
def test_pictures_and_their_restoration_load_no_torch(module: str) -> None:
    code = (
        f"import sys, restorert.{module}; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_both_ways(dtype: type) -> None:
    limit = np.iinfo(dtype).max
    values = np.arange(limit + 1, dtype=dtype).reshape(-1, 16, 1)
    planes = to_unit_range(values)
    assert planes.shape == (1, len(values), 16)
    # Division in float32 rounds correctly: the float64 quotient, rounded once.
    np.testing.assert_array_equal(planes[0], (values[..., 0] / limit).astype(np.float32))
    np.testing.assert_array_equal(from_unit_range(planes, dtype), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 5, 7, 3), (4, 1, 1, 1), (2, 2, 3, 4, 3)])
def test_layouts(dtype: type, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    before, planes = pixels.copy(), to_unit_range(pixels)
    assert planes.flags.c_contiguous
    for index in np.ndindex(shape):
        *batch, y, x, c = index
        assert planes[(*batch, c, y, x)] == np.float32(pixels[index]) / np.float32(
            np.iinfo(dtype).max
        )
    back = from_unit_range(planes, dtype)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, before)
    np.testing.assert_array_equal(pixels, before)


def test_floats_are_neither_scaled_nor_changed() -> None:
    floats = np.random.default_rng(1).uniform(-1, 2, (4, 5, 3)).astype(np.float32)
    before = floats.copy()
    np.testing.assert_array_equal(to_unit_range(floats), before.transpose(2, 0, 1))
    assert to_unit_range(floats.astype(np.float64)).dtype == np.float32
    from_unit_range(floats, np.uint8)
    np.testing.assert_array_equal(floats, before)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("nearest", [0, 0, 1, 2, 127, 255]), ("truncate", [0, 0, 0, 1, 126, 255])],
)
def test_clamped_and_rounded(rounding: str, expected: list[int]) -> None:
    levels = np.array([-9, 0.4, 0.6, 1.9, 126.9, 300], np.float64).reshape(1, 1, 6) / 255
    np.testing.assert_array_equal(from_unit_range(levels, np.uint8, rounding).ravel(), expected)


def test_16_bits_to_8_by_the_definition() -> None:
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_8_bits(values), np.rint(values / 65535 * 255))
    eight = np.arange(256, dtype=np.uint8)
    assert to_8_bits(eight) is eight


@pytest.mark.parametrize("batch", [(), (2,)])
def test_channels(batch: tuple[int, ...]) -> None:
    rgb = np.random.default_rng(2).random((*batch, 3, 4, 5), dtype=np.float32)
    assert with_channels(rgb, 3) is rgb
    grey = with_channels(rgb, 1)
    assert grey.shape == (*batch, 1, 4, 5)
    # measured worst: 6e-8
    np.testing.assert_allclose(grey[..., 0, :, :], rgb.astype(float).mean(axis=-3), atol=2e-7)
    np.testing.assert_array_equal(with_channels(grey, 3), np.concatenate([grey] * 3, axis=-3))
    four = with_channels(rgb, 4)
    np.testing.assert_array_equal(four, np.concatenate([rgb, rgb[..., :1, :, :]], axis=-3))
