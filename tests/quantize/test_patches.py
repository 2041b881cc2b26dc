"""Patches of pictures."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restorert as rr
from restorert.errors import InputError, PictureError
from restorert.quantize import Patches
from restorert.quantize.patches import read_patches


def test_patches_are_what_the_runner_feeds(
    pictures: Path, network: rr.networks.RestorationNetwork
) -> None:
    spec = dataclasses.replace(network.spec, tile=50)
    found = read_patches(pictures, spec, 9)
    assert len(found.inputs) == 9
    assert {x.shape for x in found.inputs} == {(1, 3, 52, 52)}
    assert sorted(found.pictures) == ["astronaut.png", "coffee.png", "rocket.png"]
    assert found.references is None
    coffee = np.asarray(Image.open(pictures / "coffee.png")).transpose(2, 0, 1) / np.float32(255)
    crops = [coffee[:, top : top + 50, left : left + 50] for top in (0, 40) for left in (0, 40)]
    padded = [np.pad(crop, ((0, 0), (0, 2), (0, 2)), "reflect") for crop in crops]
    known = sum(any(np.allclose(x[0], p, atol=1e-7) for p in padded) for x in found.inputs)
    assert known == 3


def test_patches_do_not_depend_on_names(
    pictures: Path, tmp_path: Path, network: rr.networks.RestorationNetwork
) -> None:
    for index, path in enumerate(sorted(pictures.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"{index}.png")
    first, second = (
        read_patches(folder, network.spec, 7, size=32, noise=25) for folder in (pictures, tmp_path)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
    assert sorted(first.pictures.values()) == sorted(second.pictures.values())
    assert first.references is not None
    noise = np.stack(first.inputs) - np.stack(first.references)
    # three standard errors of 21504 draws: 1.5 % and 0.002; measured: 0.02 % and 0.0008
    assert noise.std() == pytest.approx(25 / 255, rel=0.015)
    assert abs(noise.mean()) < 0.002


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channels(pictures: Path, channels: int, network: rr.networks.RestorationNetwork) -> None:
    config = dataclasses.replace(network.spec.config, in_channels=channels)
    spec = dataclasses.replace(network.spec, config=config)
    found = read_patches(pictures / "coffee.png", spec, 1)
    assert found.inputs[0].shape == (1, channels, 92, 92)


def test_pictures_that_are_none(
    tmp_path: Path, network: rr.networks.RestorationNetwork, pictures: Path
) -> None:
    with pytest.raises(InputError, match="no pictures to calibrate with"):
        read_patches(tmp_path, network.spec)
    with pytest.raises(InputError, match="cannot read picture"):
        read_patches(tmp_path / "none.png", network.spec)
    (tmp_path / "a.png").write_bytes(bytes(range(100)))
    with pytest.raises(PictureError, match=r"a\.png"):
        read_patches(tmp_path, network.spec)
    for arguments in ({"count": 0}, {"size": 0}, {"noise": -1.0}, {"noise": 256.0}):
        with pytest.raises(InputError, match="calibration needs"):
            read_patches(pictures, network.spec, **arguments)  # type: ignore[arg-type]


def test_some_of_the_patches_are_spread_over_all() -> None:
    inputs = tuple(np.full((1, 1, 1, 1), i, np.float32) for i in range(7))
    patches = Patches(inputs, tuple(-x for x in inputs), {"a.png": "ab"}, 25.0)
    some = patches.spread(3)
    assert [x.item() for x in some.inputs] == [0, 2, 4]
    assert some.references is not None
    assert [x.item() for x in some.references] == [0, -2, -4]
    assert (some.pictures, some.noise) == (patches.pictures, patches.noise)
    assert patches.spread(9).inputs == inputs
    assert dataclasses.replace(patches, references=None).spread(2).references is None
    assert Patches((), None, {}).spread(2).inputs == ()
