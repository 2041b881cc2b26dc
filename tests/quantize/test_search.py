"""One model with a switch a layer, against models that are quantised for good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from restorert.quantize import Patches
from restorert.quantize.graph import widen
from restorert.quantize.qdq import Quantizer, find_layers, insert_qdq
from restorert.quantize.search import SWITCHES, switchable
from restorert.quantize.session import observe, onnx_session, run


def test_switches(half_file: Path, patches: Patches) -> None:
    wide = widen(onnx.load(half_file))
    layers = [layer for layer in find_layers(wide) if not layer.reason_to_keep()]
    histograms = observe(wide, {layer.source for layer in layers}, patches.inputs[:2])
    scales = {name: histogram.range("mse") / 127 for name, histogram in histograms.items()}
    # Of layers with a bias and without one.
    corrections = {
        layer.name: np.linspace(-0.1, 0.1, layer.out_channels, dtype=np.float32)
        for layer in layers[::3]
    }
    assert len({layer.bias is None for layer in layers}) == 2
    session = onnx_session(switchable(Quantizer(wide, scales, corrections), layers))
    x = patches.inputs[2]
    (plain,) = run(onnx_session(wide), [x])
    for chosen in ([], layers[:1], layers[2:9], layers):
        switches = np.array([layer in chosen for layer in layers])
        (found,) = run(session, [x], **{SWITCHES: switches})
        (expected,) = run(onnx_session(insert_qdq(wide, chosen, scales, corrections)), [x])
        harm = np.linalg.norm(expected - plain)
        assert (harm > 0.05) == bool(chosen)  # measured: 0.098 to 0.98
        # Few roundings flip where ONNX Runtime fuses otherwise; measured: 0.022 of the harm
        assert np.linalg.norm(found - expected) < 2e-5 + 0.06 * harm
