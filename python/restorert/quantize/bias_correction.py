"""Bias correction: what quantisation adds to the mean of a layer's result is taken off its bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2, in its empirical form. Each layer is corrected on the results of the corrected layers
before it. One pass is enough for all of them, because the model corrects itself as it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from restorert.export import INPUT_NAME
from restorert.progress import Progress, counted
from restorert.quantize.graph import Editor
from restorert.quantize.qdq import Layer, insert_qdq
from restorert.quantize.session import onnx_session

if TYPE_CHECKING:
    import onnx

_CORRECTED = ("Conv", "ConvTranspose")


def correct_biases(
    wide: onnx.ModelProto,
    layers: Sequence[Layer],
    scales: Mapping[str, float],
    inputs: Sequence[NDArray[np.float32]],
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What to add to the bias of each convolution in ``layers``.

    Args:
        wide: see `restorert.quantize.graph.widen`.
        layers: those that are quantised.
        scales: see `insert_qdq`.
        inputs: [1, C, H, W] each. On each, the mean of every channel is made equal to that of the
            float32 model; the corrections are averaged.
        progress: called with what is being done and the share done.

    Returns:
        Layer's name -> [channels].
    """
    from onnx import TensorProto, helper

    chosen = [layer for layer in layers if layer.op in _CORRECTED]
    if not chosen or not inputs:
        return {}
    reference, simulated = Editor(wide), Editor(insert_qdq(wide, layers, scales))
    for edit in (reference, simulated):
        axes = edit.constant("calibrated_axes", np.array([0, 2, 3], np.int64))
        del edit.graph.output[:]
    means = [f"calibrated_mean_{index}" for index in range(len(chosen))]
    mean_of = {layer.output: mean for layer, mean in zip(chosen, means, strict=True)}
    for layer, mean in zip(chosen, means, strict=True):
        reference.tap("ReduceMean", [layer.output, axes], mean)
        shape = [1, layer.out_channels, 1, 1]
        value = helper.make_tensor_value_info(mean, TensorProto.FLOAT, shape)
        simulated.graph.input.append(value)
    for node in simulated.rebuild():
        result = node.output[0]
        if result not in mean_of:
            simulated.graph.node.append(node)
            continue
        mean = mean_of[result]
        raw = node.output[0] = f"{mean}_raw"
        simulated.graph.node.append(node)
        own = simulated.add("ReduceMean", [raw, axes], f"{mean}_own")
        correction = simulated.tap("Sub", [mean, own], f"{mean}_correction")
        simulated.add("Add", [raw, correction], result)
    sessions = onnx_session(reference.model), onnx_session(simulated.model)
    totals = [np.zeros(layer.out_channels) for layer in chosen]
    for x in counted(inputs, "correcting biases", progress):
        expected = sessions[0].run(None, {INPUT_NAME: x})
        found = sessions[1].run(None, {INPUT_NAME: x, **dict(zip(means, expected, strict=True))})
        for total, correction in zip(totals, found, strict=True):
            total += correction.reshape(-1)
    return {
        layer.name: (total / len(inputs)).astype(np.float32)
        for layer, total in zip(chosen, totals, strict=True)
    }
