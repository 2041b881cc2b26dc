"""One model in which each layer's INT8 form can be switched on and off, to measure its harm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.quantize.calibration import onnx_session, run
from restorert.quantize.qdq import OPSET_QDQ, Layer, quantize_weights, representable

if TYPE_CHECKING:
    import onnx

_SWITCHES = "quantized"


class Simulation:
    """Runs a float32 model with any of its layers quantised, without building it again."""

    def __init__(
        self,
        wide: onnx.ModelProto,
        layers: Sequence[Layer],
        scales: Mapping[str, float],
        corrections: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.layers = list(layers)
        self._session = onnx_session(_switchable(wide, self.layers, scales, corrections or {}))

    def run(
        self, inputs: Sequence[NDArray[np.float32]], quantized: Collection[str]
    ) -> list[NDArray[Any]]:
        """The pictures where the layers of these names are in INT8 and the others are not."""
        switches = np.array([layer.name in quantized for layer in self.layers])
        return run(self._session, inputs, **{_SWITCHES: switches})


def _switchable(
    wide: onnx.ModelProto,
    layers: Sequence[Layer],
    scales: Mapping[str, float],
    corrections: Mapping[str, NDArray[Any]],
) -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto.FromString(wide.SerializeToString())
    for imported in model.opset_import:
        if imported.domain == "":
            imported.version = max(imported.version, OPSET_QDQ)
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(layers)]))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    by_output = {layer.output: (index, layer) for index, layer in enumerate(layers)}
    nodes: list[Any] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def switch(stem: str, on: str, off: str) -> str:
        nodes.append(helper.make_node("Where", [f"{stem}_on", on, off], [f"{stem}_{off}"]))
        return f"{stem}_{off}"

    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        index, layer = by_output.get(node.output[0], (0, None)) if node.output else (0, None)
        if layer is not None:
            stem = f"simulated_{index}"
            weights, scale = quantize_weights(tensors[layer.weight], layer.axis)
            spread = scale.reshape([-1 if i == layer.axis else 1 for i in range(weights.ndim)])
            at = constant(f"{stem}_index", np.array(index))
            step = constant(f"{stem}_scale", representable(np.array(scales[layer.source])))
            zero = constant(f"{stem}_zero", np.zeros((), np.int8))
            weight = constant(f"{stem}_weight", (weights * spread).astype(np.float32))
            nodes += [
                helper.make_node("Gather", [_SWITCHES, at], [f"{stem}_on"]),
                helper.make_node("QuantizeLinear", [layer.source, step, zero], [f"{stem}_q"]),
                helper.make_node("DequantizeLinear", [f"{stem}_q", step, zero], [f"{stem}_dq"]),
            ]
            node.input[0] = switch(stem, f"{stem}_dq", layer.source)
            node.input[1] = switch(stem, weight, layer.weight)
            if layer.name in corrections and layer.op != "MatMul":
                off = layer.bias or constant(
                    f"{stem}_no_bias", np.zeros(layer.out_channels, np.float32)
                )
                bias = tensors[layer.bias] if layer.bias else np.zeros(layer.out_channels)
                on = constant(f"{stem}_bias", (bias + corrections[layer.name]).astype(np.float32))
                corrected = switch(stem, on, off)
                del node.input[2:]
                node.input.append(corrected)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model
