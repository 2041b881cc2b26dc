"""Bias correction: what quantisation adds to the mean of a layer's result is taken off its bias.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019),
section 4.2, in its empirical form. The layers are corrected in the order in which they run, each on
what the corrected layers before it give; all of them in one pass, because the model itself does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.export import INPUT_NAME
from restorert.progress import Progress
from restorert.quantize.calibration import onnx_session
from restorert.quantize.qdq import Layer, insert_qdq

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
        wide: see `restorert.quantize.qdq.widen`.
        layers: those that are quantised.
        scales: see `insert_qdq`.
        inputs: [1, C, H, W] each. On each the mean of every channel is made equal to that of the
            float32 model; the corrections are averaged.
        progress: called with what is being done and the share done.

    Returns:
        Layer's name -> [channels].
    """
    import onnx
    from onnx import TensorProto, helper

    chosen = [layer for layer in layers if layer.op in _CORRECTED]
    if not chosen or not inputs:
        return {}
    reference = onnx.ModelProto.FromString(wide.SerializeToString())
    simulated = insert_qdq(wide, layers, scales)
    by_output = {layer.output: index for index, layer in enumerate(chosen)}
    axes = helper.make_tensor("calibrated_axes", TensorProto.INT64, [3], [0, 2, 3])
    for model in (reference, simulated):
        model.graph.initializer.append(axes)
        del model.graph.output[:]
    for index, layer in enumerate(chosen):
        reference.graph.node.append(
            helper.make_node("ReduceMean", [layer.output, axes.name], [f"calibrated_mean_{index}"])
        )
        reference.graph.output.append(
            helper.make_empty_tensor_value_info(f"calibrated_mean_{index}")
        )
    nodes = []
    for original in simulated.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        nodes.append(node)
        index = by_output.get(node.output[0], -1)
        if index < 0:
            continue
        result, raw = node.output[0], f"calibrated_raw_{index}"
        node.output[0] = raw
        channels = chosen[index].out_channels
        simulated.graph.input.append(
            helper.make_tensor_value_info(
                f"calibrated_mean_{index}", TensorProto.FLOAT, [1, channels, 1, 1]
            )
        )
        nodes += [
            helper.make_node("ReduceMean", [raw, axes.name], [f"calibrated_own_{index}"]),
            helper.make_node(
                "Sub",
                [f"calibrated_mean_{index}", f"calibrated_own_{index}"],
                [f"calibrated_correction_{index}"],
            ),
            helper.make_node("Add", [raw, f"calibrated_correction_{index}"], [result]),
        ]
        simulated.graph.output.append(
            helper.make_empty_tensor_value_info(f"calibrated_correction_{index}")
        )
    del simulated.graph.node[:]
    simulated.graph.node.extend(nodes)
    sessions = onnx_session(reference), onnx_session(simulated)
    totals: list[NDArray[Any]] = [np.zeros(layer.out_channels) for layer in chosen]
    for done, x in enumerate(inputs):
        if progress:
            progress("correcting biases", done / len(inputs))
        means = sessions[0].run(None, {INPUT_NAME: x})
        feeds = {f"calibrated_mean_{index}": mean for index, mean in enumerate(means)}
        for total, found in zip(
            totals, sessions[1].run(None, {INPUT_NAME: x, **feeds}), strict=True
        ):
            total += found.reshape(-1)
    if progress:
        progress("correcting biases", 1.0)
    return {
        layer.name: (total / len(inputs)).astype(np.float32)
        for layer, total in zip(chosen, totals, strict=True)
    }
