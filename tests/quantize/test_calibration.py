"""Ranges, and the patches they are observed on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import restorert as rr
from restorert.errors import InputError, PictureError
from restorert.quantize import METHODS, Histogram, Patches
from restorert.quantize import calibration as module
from restorert.quantize.calibration import count_macs, inlined, observe
from restorert.quantize.patches import read_patches
from restorert.quantize.qdq import find_layers, widen

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


@pytest.fixture
def wide(half_file: Path) -> onnx.ModelProto:
    return inlined(widen(onnx.load(half_file)))


def test_observed_extremes_are_the_tensors(wide: onnx.ModelProto, patches: Patches) -> None:
    layers = find_layers(wide)
    names = [layers[1].source, layers[-1].source]
    found = observe(wide, names, patches.inputs)
    tapped = onnx.ModelProto.FromString(wide.SerializeToString())
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    session = module.onnx_session(tapped)
    tensors: Sequence[np.ndarray]
    for index, name in enumerate(names):
        tensors = [session.run([name], {"input": x})[0] for x in patches.inputs]
        assert found[name].largest == max(np.abs(t).max() for t in tensors)
        # patches this small are taken whole
        expected = Histogram()
        expected.add(np.abs(np.concatenate([t.ravel() for t in tensors])))
        assert np.array_equal(found[name].counts, expected.counts), index


def test_an_interrupted_calibration_goes_on(
    wide: onnx.ModelProto, patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [layer.source for layer in find_layers(wide)]
    inputs = [x for x in patches.inputs for _ in range(2)]
    whole = observe(wide, names, inputs)
    state = tmp_path / "state"
    runs: list[float] = []

    def stop(phase: str, share: float) -> None:
        runs.append(share)
        if share >= 10 / 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(wide, names, inputs, progress=stop, state=state)
    assert len(runs) == 11
    kept = state.read_bytes()
    after: list[float] = []
    again = observe(wide, names, inputs, progress=lambda _, share: after.append(share), state=state)
    assert after == [8 / 12, 9 / 12, 10 / 12, 11 / 12, 1.0]
    assert not state.exists()
    for name, histogram in whole.items():
        assert np.array_equal(again[name].counts, histogram.counts)
        assert again[name].largest == histogram.largest
    # of other work, or damaged: from the beginning
    others = inputs[:-1]
    fresh = observe(wide, names[:1], others)[names[0]]
    for content in (kept, kept[:100], b"", b"PK\x03\x04garbage"):
        state.write_bytes(content)
        found = observe(wide, names[:1], others, state=state)[names[0]]
        assert np.array_equal(found.counts, fresh.counts)
        assert found.largest == fresh.largest


def test_macs_are_the_networks(
    wide: onnx.ModelProto, network: rr.networks.RestorationNetwork
) -> None:
    from restorert.networks.counts import count_macs as count_of_modules

    shape = network.spec.shape_for(32, 48)
    layers = find_layers(wide)
    each, total = count_macs(wide, layers, np.zeros(shape, np.float32))
    assert total == sum(each.values()) == count_of_modules(network.deploy("tensorrt"), shape).exact


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
