"""Photographs of a folder, and pairs that depend on seed and step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorert.errors import InputError, PictureError
from restorert.pictures.degradations import Degradation, GaussianNoise, Haze
from restorert.training import Pairs, read_photographs
from restorert.training.data import shrink

NOISE: Degradation = GaussianNoise()


def levels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_photographs_are_read_shrunk_and_in_order(tmp_path: Path) -> None:
    big = levels(90, 210)
    Image.fromarray(big).save(tmp_path / "b.png")
    Image.fromarray(levels(70, 80)[..., 0]).save(tmp_path / "a.tif")
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_photographs(tmp_path, largest_side=100, smallest_side=30)
    assert list(found) == ["a.tif", "b.png"]
    assert found["a.tif"].shape == (70, 80, 3)
    assert np.ptp(found["a.tif"], axis=2).max() == 0
    # 210 pixels fit into 100 when divided by 3
    expected = np.rint(big.reshape(30, 3, 70, 3, 3).mean(axis=(1, 3))).astype(np.uint8)
    np.testing.assert_array_equal(found["b.png"], expected)


def test_shrink_cuts_what_a_block_lacks() -> None:
    picture = levels(7, 9)
    assert shrink(picture, 1) is picture
    found = shrink(picture, 4)
    assert found.shape == (1, 2, 3)
    np.testing.assert_array_equal(found[0, 1], np.rint(picture[:4, 4:8].mean(axis=(0, 1))))
    assert shrink(np.full((8, 8, 3), 255, np.uint8), 8).tolist() == [[[255] * 3]]


def test_hostile_folders_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="no such folder of photographs"):
        read_photographs(tmp_path / "none")
    with pytest.raises(PictureError, match="no pictures in it; put photographs there"):
        read_photographs(tmp_path)
    Image.fromarray(levels(80, 40)).save(tmp_path / "small.png")
    with pytest.raises(PictureError, match=r"small.png: 40x80 is too small .* of 64 pixels"):
        read_photographs(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PictureError, match=r"broken.jpg"):
        read_photographs(tmp_path)


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    pictures = [levels(100, 140), levels(90, 80, 1)]
    pairs = Pairs(pictures, [NOISE, Haze()], seed=3)
    pairs.batch(6, 4, 32)
    one, again = pairs.batch(7, 4, 32), Pairs(pictures, [NOISE, Haze()], seed=3).batch(7, 4, 32)
    assert torch.equal(one.degraded, again.degraded)
    assert torch.equal(one.clean, again.clean)
    assert torch.equal(one.labels, again.labels)
    for other in (pairs.batch(8, 4, 32), Pairs(pictures, [NOISE, Haze()], seed=4).batch(7, 4, 32)):
        assert not torch.equal(one.clean, other.clean)
    # a larger batch begins with the smaller one's pairs
    assert torch.equal(pairs.batch(7, 2, 32).clean, one.clean[:2])
    assert one.clean.shape == one.degraded.shape == (4, 3, 32, 32)
    assert one.clean.is_contiguous(memory_format=torch.channels_last)
    assert one.clean.dtype == one.degraded.dtype == torch.float32
    assert 0 <= one.clean.min() <= one.clean.max() <= 1


def test_labels_are_the_degradations_and_come_in_their_shares() -> None:
    pairs = Pairs([levels(64, 64)], [NOISE, Haze(), NOISE], shares=[1, 2, 1])
    labels = torch.cat([pairs.batch(step, 20, 8).labels for step in range(30)])
    shares = torch.bincount(labels, minlength=3) / 600
    # three standard errors: 6 %; measured: 2 %
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), atol=0.06, rtol=0)
    for step in range(5):
        batch = pairs.batch(step, 8, 32)
        hazy = batch.degraded.std(dim=(1, 2, 3)) < 0.8 * batch.clean.std(dim=(1, 2, 3))
        assert torch.equal(hazy, batch.labels == 1)


def test_crops_come_from_the_photographs() -> None:
    """Turned, exchanged and darkened, every crop keeps a grey photograph's value."""
    picture = np.full((70, 70, 3), 51, np.uint8)
    crops = Pairs([picture], [NOISE], hardened=False).batch(0, 32, 16).clean
    brightest = crops.amax(dim=(1, 2, 3))
    assert torch.equal(brightest, crops.amin(dim=(1, 2, 3)))
    assert brightest.max() == pytest.approx(0.2)
    assert 0.1 - 1e-6 <= brightest.min() < 0.19  # exposures of 0.5 to 1; measured: 0.103


@pytest.mark.parametrize("share", ["sharpened", "joined", "lined", "grained"])
def test_each_hardening_stays_in_range_and_adds_detail(share: str) -> None:
    rows, columns = np.mgrid[:80, :80]
    soft = np.stack([rows, columns, 80 + (rows + columns) / 2], axis=2) + 20
    pairs = Pairs([soft.astype(np.uint8)], [NOISE])
    detail = {}
    for chance in (0.0, 1.0):
        for name in ("sharpened", "joined", "lined", "grained"):
            setattr(pairs, name, chance if name == share else 0.0)
        clean = pairs.batch(0, 32, 32).clean
        assert 0 <= clean.min() <= clean.max() <= 1
        detail[chance] = float((clean[..., 1:] - clean[..., :-1]).abs().mean())
    # measured: 1.15, 1.39, 7.3 and 17.7; sharpening finds only the rounding of a slope
    least = {"sharpened": 1.08, "joined": 1.2, "lined": 4, "grained": 10}[share]
    assert detail[1.0] > detail[0.0] * least


def test_darkened_crops_come_in_their_share_and_range() -> None:
    white = [np.full((64, 64, 3), 255, np.uint8)]

    def exposures(**options: object) -> np.ndarray:
        pairs = Pairs(white, [NOISE], hardened=False, **options)  # type: ignore[arg-type]
        batches = [pairs.batch(step, 100, 16).clean for step in range(4)]
        return torch.cat(batches).amax(dim=(1, 2, 3)).numpy()

    found = exposures(darkened=(0.6, 0.1))
    assert 0.5 < (found < 1).mean() < 0.7
    assert 0.1 <= found.min() < 0.15
    assert 0.2 < (exposures() < 1).mean() < 0.4
    assert 0.5 <= exposures().min() < 0.55
    assert (exposures(darkened=(0.0, 0.1)) == 1).all()


@pytest.mark.parametrize(
    ("photographs", "degradations", "shares", "message"),
    [
        ([], [NOISE], None, "at least one photograph and one"),
        ([levels(64, 64)], [], None, "at least one photograph and one"),
        ([levels(64, 64)], [NOISE], [1, 2], "1 degradations need as many shares > 0"),
        ([levels(64, 64)], [NOISE], [0], "shares > 0"),
    ],
)
def test_pairs_without_their_parts(
    photographs: list, degradations: list, shares: list | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Pairs(photographs, degradations, shares=shares)


def test_a_patch_larger_than_every_photograph() -> None:
    with pytest.raises(InputError, match="no photograph has 128 pixels on its shorter side"):
        Pairs([levels(64, 200)], [NOISE]).batch(0, 1, 128)
