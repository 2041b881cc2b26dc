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
from restorert.pictures.grid import overlap_of, overlapping_starts, tile_grid, tile_side
from restorert.pictures.picture import Picture
from restorert.pictures.pixels import from_unit_range, to_unit_range
from restorert.restore import restore_picture, restore_tiled


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
    with pytest.raises(InputError, match='it must be "auto", "authors", None or'):
        tile_side(tile, network_spec("hinet-gopro"))


def test_tiles_of_a_network() -> None:
    gopro, sidd = network_spec("hinet-gopro"), network_spec("hinet-sidd")
    assert (tile_side("auto", gopro), tile_side("auto", sidd)) == (256, None)
    assert (tile_side("authors", gopro), tile_side("authors", sidd)) == (256, None)
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


@settings(max_examples=500)
@given(length=st.integers(1, 3000), tile=st.integers(1, 600), share=st.floats(0, 0.5))
def test_crops_overlap_everywhere_and_are_the_fewest(length: int, tile: int, share: float) -> None:
    overlap = int(tile * share)
    starts = overlapping_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(length - tile, 0)
    steps = np.diff(starts)
    if steps.size:
        assert steps.min() > 0
        assert tile - steps.max() >= overlap
        assert steps.max() - steps.min() <= 1
        # One crop fewer would leave a gap, or less overlap.
        assert (len(starts) - 1) * tile - (len(starts) - 2) * overlap < length


def test_overlaps() -> None:
    assert overlap_of("auto", 256, None) == overlap_of(256, 256, None) == 32
    assert overlap_of(64, 64, 0) == 0
    assert overlap_of(64, 64, 32) == 32
    assert overlap_of("authors", 256, None) is None
    for wrong in (-1, 33, True, 1.5, "8"):
        with pytest.raises(InputError, match="from 0 to half of the tile, 32 pixels"):
            overlap_of(64, 64, wrong)  # type: ignore[arg-type]
    assert overlap_of(None, None, None) is None
    with pytest.raises(InputError, match="not restored in tiles; name a tile"):
        overlap_of(None, None, 8)
    with pytest.raises(InputError, match="grid has its own overlap"):
        overlap_of("authors", 64, 8)


@settings(max_examples=60)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), tile=st.integers(1, 30),
    share=st.floats(0, 0.5), batch_size=st.integers(1, 5), seed=st.integers(0, 99),
)  # fmt: skip
def test_blended_identity(height, width, tile, share, batch_size, seed) -> None:
    array = np.random.default_rng(seed).integers(0, 65536, (height, width, 3), np.uint16)
    engine, planes = FunctionEngine(lambda x: x), to_unit_range(array)
    restored = restore_tiled(planes, engine, tile, batch_size, int(tile * share))
    np.testing.assert_allclose(restored, planes, rtol=1e-14)  # measured: 2.2e-16
    np.testing.assert_array_equal(from_unit_range(restored, np.uint16), array)
    assert max(shape[2] for shape in engine.shapes) <= tile


def test_blending_pixel_by_pixel() -> None:
    """Each crop is numbered; the weights are counted out along one row."""
    numbers = iter(range(100))

    def number(x):
        return np.full_like(x, next(numbers))

    planes = np.zeros((3, 8, 22), np.float32)
    found = restore_tiled(planes, FunctionEngine(number), 10, 1, 4)
    # starts 0, 6, 12: crops 0 and 1 share columns 6 to 9, crops 1 and 2 columns 12 to 15
    ramp = [0.125, 0.375, 0.625, 0.875]
    expected = [0] * 6 + ramp + [1] * 2 + [1 + share for share in ramp] + [2] * 6
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-12)


@pytest.mark.parametrize("width", [512, 500, 1280])
def test_a_difference_between_crops_becomes_a_slope(width: int) -> None:
    """Widths that are multiples of the tile had no overlap, and steps of whole levels."""
    x = np.linspace(0, 1, width, dtype=np.float32)
    planes = np.broadcast_to(x, (3, 256, width)).copy()

    def shift(crops):  # as instance statistics do
        return crops + 0.1 * (crops.mean(axis=(2, 3), keepdims=True) - 0.5)

    steps = {}
    for overlap in (None, 32):
        found = restore_tiled(planes, FunctionEngine(shift), 256, 1, overlap)
        steps[overlap] = np.abs(np.diff(found - planes, axis=2)).max() * 255
    assert steps[32] < 0.3  # measured: 0.13 of 255 levels
    if width % 256 == 0:
        assert steps[None] > 5  # measured: 5.1 to 12.7


def test_pictures_are_blended_unless_the_authors_grid_is_named() -> None:
    picture = Picture(data.astronaut()[:64, :128])

    def subtract_mean(x):
        return (x - x.mean(axis=(2, 3), keepdims=True) + 0.5).astype(np.float32)

    engine = FunctionEngine(subtract_mean, tile=64)
    planes = to_unit_range(picture.pixels)

    def expected(overlap):
        return from_unit_range(restore_tiled(planes, engine, 64, 1, overlap), np.uint8)

    by = {
        "auto": restore_picture(picture, engine),
        "authors": restore_picture(picture, engine, tile="authors"),
        64: restore_picture(picture, engine, tile=64, overlap=20),
    }
    np.testing.assert_array_equal(by["auto"].pixels, expected(8))
    np.testing.assert_array_equal(by["authors"].pixels, expected(None))
    np.testing.assert_array_equal(by[64].pixels, expected(20))
    assert len({result.pixels.tobytes() for result in by.values()}) >= 2


@pytest.mark.slow
def test_no_seam_shows_with_hinet_tiny() -> None:
    import restorert as rr

    engine = rr.build_engine(rr.load_network("hinet-tiny"), runner="torch")
    y, x = np.mgrid[:256, :512] / 512
    scene = np.stack([230 - 180 * x, 60 + 300 * y, 128 + 90 * np.sin(9 * x)], axis=-1)
    scene[32:96, 64:160], scene[130:190, 270:380] = (242, 26, 26), (0, 0, 0)
    noisy = scene + np.random.default_rng(0).normal(0, 25, scene.shape)
    picture = Picture(noisy.clip(0, 255).round().astype(np.uint8))
    whole = restore_picture(picture, engine, tile=None).pixels.astype(float)

    def extra_step(result):  # from a column to the next, mean over the column, at the crops' edges
        steps = np.diff(result - whole, axis=1).mean((0, 2))
        return np.abs(steps[[126, 127, 128, 254, 255, 256, 382, 383, 384]]).max()

    tiled = restore_picture(picture, engine, tile=256).pixels.astype(float)
    assert extra_step(tiled) <= 0.3  # measured: 0.06 levels; without overlap 2.0
    assert 10 * np.log10(255**2 / np.square(tiled - whole).mean()) >= 45  # measured: 53.9


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
