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
    found = read_patches(pictures, spec, 9, conditions=["given"])
    assert found.kept_out is not None
    both = (*found.inputs, *found.kept_out.inputs)
    assert {x.shape for x in both} == {(1, 3, 52, 52)}
    assert set(found.references) == {None}
    # whole pictures are kept out
    assert len(found.pictures) == 2
    assert len(found.kept_out.pictures) == 1
    assert {*found.pictures, *found.kept_out.pictures} == {
        "astronaut.png",
        "coffee.png",
        "rocket.png",
    }
    coffee = np.asarray(Image.open(pictures / "coffee.png")).transpose(2, 0, 1) / np.float32(255)
    crops = [coffee[:, top : top + 50, left : left + 50] for top in (0, 40) for left in (0, 40)]
    padded = [np.pad(crop, ((0, 0), (0, 2), (0, 2)), "reflect") for crop in crops]
    known = sum(any(np.allclose(x[0], p, atol=1e-7) for p in padded) for x in both)
    assert known == 4


def test_crops_of_a_single_picture_are_kept_out(
    pictures: Path, network: rr.networks.RestorationNetwork
) -> None:
    found = read_patches(
        pictures / "coffee.png", network.spec, 9, size=50, conditions=["given", "sigma 5"]
    )
    assert found.kept_out is not None
    # of four crops one, in each condition
    assert len(found.inputs) == 3
    assert found.kept_out.conditions == ("given", "sigma 5")
    judged = found.kept_out.inputs[0]
    assert not any(
        np.allclose(x, judged, atol=0.1)
        for x, condition in zip(found.inputs, found.conditions, strict=True)
        if condition == "given"
    )
    alone = read_patches(pictures / "coffee.png", network.spec, 9, size=90, conditions=["given"])
    assert (len(alone.inputs), alone.kept_out) == (1, None)
    assert alone.judged is alone


def test_conditions(pictures: Path, network: rr.networks.RestorationNetwork) -> None:
    names = ("given", "sigma 25", "jpeg 10", "sigma 15 + jpeg 50")
    found = read_patches(pictures, network.spec, 2, size=48, conditions=names)
    # one for each condition, although fewer were asked for
    assert found.conditions == ("given", "sigma 25", "jpeg 10", "sigma 15 + jpeg 50")
    assert found.kept_out is not None
    groups = found.kept_out.by_condition()
    assert tuple(groups) == names
    assert {len(group) for group in groups.values()} == {4}
    # on the same crops
    clean = [found.kept_out.inputs[i] for i in groups["given"]]
    for name in names[1:]:
        for x, index in zip(clean, groups[name], strict=True):
            assert np.array_equal(found.kept_out.references[index], x)
    levels = found.kept_out.inputs[groups["jpeg 10"][0]] * 255
    assert np.array_equal(levels, np.rint(levels))
    for bad, message in (
        ("sigma", "sigma takes a number from 0 to 255, not ''"),
        ("sigma 300", "sigma takes a number from 0 to 255, not '300'"),
        ("sigma nan", "not 'nan'"),
        ("jpeg 0", "jpeg takes a number from 1 to 100"),
        ("fog", "unknown condition 'fog'; expected sigma N, jpeg N, blur N, motion N, clean, rain"),
        ("sigma 5 + given", "unknown condition 'given'"),
        ("\x1b[31m", r"unknown condition '\\x1b\[31m'"),
        ("", "unknown condition ''"),
    ):
        with pytest.raises(InputError, match=message):
            read_patches(pictures, network.spec, conditions=[bad])
    with pytest.raises(InputError, match="at least one condition"):
        read_patches(pictures, network.spec, conditions=[])


def test_every_network_says_what_its_inputs_may_be(pictures: Path) -> None:
    for name in rr.list_networks():
        spec = dataclasses.replace(rr.network_spec(name), tile=None)
        found = read_patches(pictures, spec, 1, size=32)
        assert tuple(found.by_condition()) == spec.conditions
        assert {x.shape[1] for x in found.inputs} == {spec.in_channels}
        assert all(np.isfinite(x).all() for x in found.inputs)


def test_patches_do_not_depend_on_names(
    pictures: Path, tmp_path: Path, network: rr.networks.RestorationNetwork
) -> None:
    for index, path in enumerate(sorted(pictures.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"{index}.png")
    first, second = (
        read_patches(folder, network.spec, 7, size=32, conditions=["sigma 25"])
        for folder in (pictures, tmp_path)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
    assert sorted(first.pictures.values()) == sorted(second.pictures.values())
    noise = np.stack(first.inputs) - np.stack([r for r in first.references if r is not None])
    # three standard errors of 21504 draws: 1.5 % and 0.002; measured: 0.02 % and 0.0008
    assert noise.std() == pytest.approx(25 / 255, rel=0.015)
    assert abs(noise.mean()) < 0.002


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_channels(pictures: Path, channels: int, network: rr.networks.RestorationNetwork) -> None:
    config = dataclasses.replace(network.spec.config, in_channels=channels)
    spec = dataclasses.replace(network.spec, config=config)
    found = read_patches(pictures / "coffee.png", spec, 1, conditions=["given", "sigma 9"])
    assert found.inputs[1].shape == (1, channels, 92, 92)


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
    for arguments in ({"count": 0}, {"size": 0}):
        with pytest.raises(InputError, match="calibration needs"):
            read_patches(pictures, network.spec, **arguments)  # type: ignore[arg-type]


def test_some_of_the_patches_are_spread_over_all() -> None:
    inputs = tuple(np.full((1, 1, 1, 1), i, np.float32) for i in range(7))
    patches = Patches.given(inputs)
    assert [x.item() for x in patches.spread(3).inputs] == [0, 2, 4]
    assert patches.spread(9).inputs == inputs
    assert Patches.given([]).spread(2).inputs == ()
    mixed = Patches(inputs, tuple(-x for x in inputs), tuple("aababab"), {"a.png": "ab"})
    some = mixed.spread(4)
    assert [x.item() for x in some.inputs] == [0, 2, 3, 4]
    assert some.conditions == tuple("abab")
    assert [x.item() for x in some.references if x is not None] == [0, -2, -3, -4]
    assert some.pictures == mixed.pictures
    # at least one of each
    assert mixed.spread(1).conditions == tuple("ab")
