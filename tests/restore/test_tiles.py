"""The grid against the authors' loop, and tiled restoration against the whole picture."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from restorert.errors import InputError, RestorertError
from restorert.networks import network_spec
from restorert.pictures.grid import tile_grid, tile_side
from restorert.pictures.pixels import from_unit_range, to_unit_range
from restorert.restore import restore_tiled


class FunctionEngine:
    """An engine of a plain function of [N, C, H, W] float32; remembers what it was given."""

    def __init__(self, function, tile=None):
        self.function = function
        self.spec = SimpleNamespace(
            name="function", in_channels=3, out_channels=3, tile=tile, rounding="nearest"
        )
        self.shapes = []

    def __call__(self, frames):
        self.shapes.append(frames.shape)
        return self.function(frames)


def loop_of_the_authors(height: int, width: int, tile: int) -> list[tuple[int, int]]:
    """Corners by walking and stopping at the border, as the article's test code describes it."""
    rows, columns = (height - 1) // tile + 1, (width - 1) // tile + 1
    step_i = tile if rows == 1 else math.ceil((height - tile) / (rows - 1) - 1e-8)
    step_j = tile if columns == 1 else math.ceil((width - tile) / (columns - 1) - 1e-8)
    corners = []
    i, last_i = 0, False
    while i < height and not last_i:
        if i + tile >= height:
            i, last_i = max(height - tile, 0), True
        j, last_j = 0, False
        while j < width and not last_j:
            if j + tile >= width:
                j, last_j = max(width - tile, 0), True
            corners.append((i, j))
            j += step_j
        i += step_i
    return corners


sides = st.integers(1, 1200)


@settings(max_examples=500)
@given(height=sides, width=sides, tile=st.one_of(st.integers(30, 600), st.integers(600, 2000)))
def test_grid_is_the_authors_and_covers_everything(height: int, width: int, tile: int) -> None:
    grid = tile_grid(height, width, tile)
    assert [box[:2] for box in grid] == loop_of_the_authors(height, width, tile)
    covered = np.zeros((height, width), bool)
    for top, left, bottom, right in grid:
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        assert (bottom - top, right - left) == (min(tile, height), min(tile, width))
        covered[top:bottom, left:right] = True
    assert covered.all()


@settings(max_examples=300)
@given(length=st.integers(1, 60), tile=st.integers(1, 20))
def test_small_grids(length: int, tile: int) -> None:
    assert [b[:2] for b in tile_grid(length, 1, tile)] == loop_of_the_authors(length, 1, tile)


def test_grid_of_gopro_by_hand() -> None:
    # 720 x 1280 in 256: 3 rows 232 apart, 5 columns 256 apart.
    grid = tile_grid(720, 1280, 256)
    assert len(grid) == 15
    assert {box[0] for box in grid} == {0, 232, 464}
    assert {box[1] for box in grid} == {0, 256, 512, 768, 1024}
    assert network_spec("hinet-gopro").tile == 256


@pytest.mark.parametrize("arguments", [(0, 5, 4), (5, 0, 4), (5, 5, 0), (5, 5, -1)])
def test_impossible_grids(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match=">= 1"):
        tile_grid(*arguments)


@pytest.mark.parametrize("tile", [0, -1, True, 1.5, "off", "256"])
def test_tiles_that_are_none(tile: object) -> None:
    with pytest.raises(InputError, match='it must be "auto", None or pixels >= 1'):
        tile_side(tile, network_spec("hinet-gopro"))


def test_tiles_of_a_network() -> None:
    gopro, sidd = network_spec("hinet-gopro"), network_spec("hinet-sidd")
    assert (tile_side("auto", gopro), tile_side("auto", sidd)) == (256, None)
    assert (tile_side(None, gopro), tile_side(64, sidd)) == (None, 64)


@settings(max_examples=80)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    tile=st.integers(1, 30),
    batch_size=st.integers(1, 5),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    seed=st.integers(0, 99),
)
def test_identity_is_exact(height, width, tile, batch_size, dtype, seed) -> None:
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        array = rng.uniform(-1, 2, (height, width, 3)).astype(np.float32)
    else:
        array = rng.integers(0, np.iinfo(dtype).max + 1, (height, width, 3)).astype(dtype)
    engine = FunctionEngine(lambda x: x)
    restored = restore_tiled(to_unit_range(array), engine, tile, batch_size)
    assert restored.dtype == np.float64
    if dtype == np.float32:
        np.testing.assert_array_equal(restored.transpose(1, 2, 0), array)
    else:
        np.testing.assert_array_equal(from_unit_range(restored, dtype), array)
    assert sum(shape[0] for shape in engine.shapes) == len(tile_grid(height, width, tile))
    assert max(shape[0] for shape in engine.shapes) <= batch_size


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_16_and_8_bit_value_survives(dtype: type) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    array = np.repeat(values.reshape(-1, 16, 1), 3, axis=2)
    restored = restore_tiled(to_unit_range(array), FunctionEngine(lambda x: x), 13)
    np.testing.assert_array_equal(from_unit_range(restored, dtype), array)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_overlaps_are_averaged_and_rounded_once(batch_size: int) -> None:
    """Against a picture put together pixel by pixel, in float64."""
    picture = data.cat()[:70, :50]

    def subtract_mean(x):  # what a crop becomes depends on the crop, as with instance norm
        return (x - x.mean(axis=(2, 3), keepdims=True) + 0.5).astype(np.float32)

    planes = restore_tiled(to_unit_range(picture), FunctionEngine(subtract_mean), 32, batch_size)
    restored = from_unit_range(planes, np.uint8)
    boxes = [(i, j, i + 32, j + 32) for i, j in loop_of_the_authors(70, 50, 32)]
    crops = [
        picture[t:b, left:r] / 255 - (picture[t:b, left:r] / 255).mean(axis=(0, 1)) + 0.5
        for t, left, b, r in boxes
    ]
    for y in range(70):
        for x in range(0, 50, 3):
            found = [
                crop[y - t, x - left]
                for crop, (t, left, b, r) in zip(crops, boxes, strict=True)
                if t <= y < b and left <= x < r
            ]
            expected = np.clip(np.mean(found, axis=0), 0, 1) * 255
            assert (np.abs(restored[y, x] - expected) <= 0.5 + 1e-3).all()


def test_wrong_arguments_and_engines() -> None:
    planes = np.zeros((3, 4, 4), np.float32)
    identity = FunctionEngine(lambda x: x)
    for wrong in (planes[0], planes.astype(np.float64), planes.astype(np.uint8)):
        with pytest.raises(InputError, match="restore_tiled takes"):
            restore_tiled(wrong, identity, 2)
    with pytest.raises(InputError, match="batch_size"):
        restore_tiled(planes, identity, 2, 0)
    with pytest.raises(InputError, match="maps 3 channels to 3"):
        restore_tiled(planes[:1], identity, 2)
    with pytest.raises(RestorertError, match="returned"):
        restore_tiled(planes, FunctionEngine(lambda x: x[..., :1]), 2)
    with pytest.raises(RestorertError, match="not finite"):
        restore_tiled(planes, FunctionEngine(lambda x: x * np.float32(np.nan)), 2)
