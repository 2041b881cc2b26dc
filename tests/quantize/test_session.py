"""What ONNX Runtime tells of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import restorert as rr
from restorert.quantize import Histogram, Patches
from restorert.quantize.graph import widen
from restorert.quantize.qdq import find_layers
from restorert.quantize.session import count_macs, observe, onnx_session


@pytest.fixture
def wide(half_file: Path) -> onnx.ModelProto:
    return widen(onnx.load(half_file))


def test_observed_extremes_are_the_tensors(wide: onnx.ModelProto, patches: Patches) -> None:
    layers = find_layers(wide)
    names = [layers[1].source, layers[-1].source]
    found = observe(wide, names, patches.inputs)
    tapped = onnx.ModelProto.FromString(wide.SerializeToString())
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    session = onnx_session(tapped)
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
