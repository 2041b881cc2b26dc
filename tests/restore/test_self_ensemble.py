"""The self-ensemble against its definition: a mean over the symmetries of the square."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import restorert as rr
from restorert.errors import InputError
from restorert.pictures.picture import Picture
from restorert.restore import SelfEnsemble, restore_picture

SPEC = SimpleNamespace(name="fake", in_channels=3, out_channels=3, tile=None, rounding="nearest")


class Ramp:
    """Adds a slope that no mirror image leaves alone; remembers the shapes it saw."""

    def __init__(self) -> None:
        self.spec: Any = SPEC
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, frames: Any) -> Any:
        self.shapes.append(frames.shape)
        height, width = frames.shape[2:]
        slope = np.arange(height)[:, None] * 0.013 + np.arange(width) ** 2 * 0.001
        return frames + slope.astype(np.float32)


def _members(x: NDArray[Any], count: int) -> list[NDArray[Any]]:
    """The definition, by numpy's own names: each member's result, turned back."""
    engine = Ramp()
    found = [engine(x)]
    if count >= 2:
        found.append(np.flip(engine(np.flip(x, 3)), 3))
    if count >= 4:
        found.append(np.flip(engine(np.flip(x, 2)), 2))
        found.append(np.rot90(engine(np.rot90(x, 2, (2, 3))), 2, (2, 3)))
    if count == 8:
        for turned in (x, np.flip(x, 3), np.flip(x, 2), np.rot90(x, 2, (2, 3))):
            result = np.transpose(engine(np.transpose(turned, (0, 1, 3, 2))), (0, 1, 3, 2))
            back = {0: lambda y: y, 1: lambda y: np.flip(y, 3), 2: lambda y: np.flip(y, 2)}
            index = len(found) - 4
            found.append(back.get(index, lambda y: np.rot90(y, 2, (2, 3)))(result))
    return found


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 7), (1, 6)])
def test_it_is_the_mean_of_its_members(count: int, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).random((2, 3, *size), dtype=np.float32)
    found = SelfEnsemble(Ramp(), count)(x)
    assert found.dtype == np.float32
    # measured worst: 1.2e-7
    np.testing.assert_allclose(found, np.mean(_members(x, count), axis=0), rtol=0, atol=5e-7)


def test_the_whole_ensemble_turns_with_the_picture() -> None:
    x = np.random.default_rng(1).random((1, 3, 6, 9), dtype=np.float32)
    ensemble = SelfEnsemble(Ramp(), 8)
    expected = ensemble(x)
    for turns in range(4):
        turned = np.rot90(x, turns, (2, 3))
        found = np.rot90(ensemble(np.ascontiguousarray(turned)), -turns, (2, 3))
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)  # measured worst: 1.2e-7


@pytest.mark.parametrize(
    ("count", "shapes"), [(4, {(1, 3, 6, 9)}), (8, {(1, 3, 6, 9), (1, 3, 9, 6)})]
)
def test_four_keep_the_size(count: int, shapes: set[tuple[int, ...]]) -> None:
    engine = Ramp()
    SelfEnsemble(engine, count)(np.zeros((1, 3, 6, 9), np.float32))
    assert set(engine.shapes) == shapes
    assert len(engine.shapes) == count


@pytest.mark.parametrize("count", [0, 3, 6, 16, -1])
def test_other_counts_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"has 1, 2, 4 or 8 members, not {count}"):
        SelfEnsemble(Ramp(), count)


def test_pictures_of_all_kinds_are_rounded_once() -> None:
    class Third(Ramp):
        def __call__(self, frames: Any) -> Any:
            return frames + np.float32(0.4 / 255)  # less than half a level: rounds away

    rng = np.random.default_rng(2)
    for dtype in (np.uint8, np.uint16):
        for channels in (1, 3):
            pixels = rng.integers(0, np.iinfo(dtype).max * 9 // 10, (5, 7, channels), dtype=dtype)
            restored = restore_picture(Picture(pixels), SelfEnsemble(Third(), 8)).pixels
            step = round(0.4 / 255 * np.iinfo(dtype).max)
            assert restored.dtype == dtype
            assert np.array_equal(restored, pixels + dtype(step))


@pytest.mark.slow
def test_it_makes_the_shipped_network_better() -> None:
    from skimage import data

    clean = np.float32(data.cat()[60:124, 60:156].transpose(2, 0, 1)[None]) / np.float32(255)
    noise = np.random.default_rng(3).normal(0, 25 / 255, clean.shape)
    noisy = (clean + noise).astype(np.float32)
    engine = rr.build_engine(rr.load_network("hinet-tiny"), runner="torch")

    def psnr(count: int) -> float:
        restored = SelfEnsemble(engine, count)(noisy)
        return float(-10 * np.log10(np.square(restored.clip(0, 1) - clean).mean()))

    one, four, eight = psnr(1), psnr(4), psnr(8)
    print(one, four, eight)
    assert one + 0.03 < four < eight
