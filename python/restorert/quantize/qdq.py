"""Explicit quantisation: QuantizeLinear and DequantizeLinear put into an exported ONNX file.

TensorRT's rules for them ("Explicit Quantization" in its documentation): symmetric, zero point 0,
activations with a scale a tensor, weights with a scale an output channel; a pair before each input
of a layer that is to run in INT8 and none behind it, so that bias, activation and residual sum are
fused into the layer. ONNX Runtime and OpenVINO take the same form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError

if TYPE_CHECKING:
    import onnx

# The oldest opset whose QuantizeLinear takes float16.
OPSET_QDQ = 19
LEVELS = 127
"""int8 is used from -127 to 127, so that weights and their negatives quantise alike."""

# Output channels are this axis of the weights.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with constant weights: what can run in INT8.

    Attributes:
        name: its weights' name without ``.weight``, as in the network's state dict; where the
            exporter folded the weights, the node's.
        op: Conv, ConvTranspose, MatMul or Gemm.
        node: the node's name.
        source: the tensor it reads.
        weight, output: names of its weights and of its result.
        bias: name of its bias, or None.
        axis: of the output channels in the weights.
        shape: of the weights.
        groups: of a convolution.
        is_float32: it stays in float32 at every precision, see `NetworkSpec.fp32_parts`.
    """

    name: str
    op: str
    node: str
    source: str
    weight: str
    output: str
    bias: str | None
    axis: int
    shape: tuple[int, ...]
    groups: int
    is_float32: bool

    @property
    def in_channels(self) -> int:
        """Channels of the tensor it reads."""
        if self.op == "Conv":
            return self.shape[1] * self.groups
        return self.shape[1 - self.axis] if self.op == "Gemm" else self.shape[0]

    @property
    def out_channels(self) -> int:
        """Channels of its result."""
        return self.shape[self.axis] * (self.groups if self.op == "ConvTranspose" else 1)

    @property
    def macs_per_position(self) -> int:
        """Multiply-accumulates for each pixel of the result (of the source, if transposed)."""
        return int(np.prod(self.shape)) // (self.groups if self.op == "Conv" else 1)

    def reason_to_keep(self) -> str | None:
        """Why the layer does not run in INT8 by default; None where it does.

        Eight bits are too few for the picture itself, and layers of a few channels have next to
        no MACs; depthwise convolutions wait for memory and not for arithmetic.
        """
        if self.is_float32:
            return "stays in float32 at every precision"
        if min(self.in_channels, self.out_channels) <= _PICTURE_CHANNELS:
            return "reads or writes a picture"
        if self.groups > 1 and self.groups == self.in_channels:
            return "depthwise"
        return None


_PICTURE_CHANNELS = 6


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of an exported model that have constant weights, in the order they run in."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers: list[Layer] = []
    taken: set[str] = set()
    widened = _is_half(model)
    for node in model.graph.node:
        if node.domain or node.op_type not in _CHANNEL_AXIS or node.input[1] not in weights:
            continue
        tensor = weights[node.input[1]]
        rank = len(tensor.dims)
        if rank != 2 if node.op_type in ("MatMul", "Gemm") else rank < 3:
            continue
        name = node.input[1].removesuffix(".weight")
        if not node.input[1].endswith(".weight") or name in taken:
            name = node.name or node.output[0]
        taken.add(name)
        axis = _CHANNEL_AXIS[node.op_type]
        if node.op_type == "Gemm" and _attribute(node, "transB", 0):
            axis = 0
        layers.append(
            Layer(
                name=name,
                op=node.op_type,
                node=node.name,
                source=node.input[0],
                weight=node.input[1],
                output=node.output[0],
                bias=node.input[2] if len(node.input) > 2 and node.input[2] in weights else None,
                axis=axis,
                shape=tuple(tensor.dims),
                groups=_attribute(node, "group", 1),
                is_float32=widened and tensor.data_type == _FLOAT,
            )
        )
    return layers


_FLOAT, _HALF = 1, 10  # onnx.TensorProto's


def _is_half(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == _HALF for tensor in model.graph.initializer)


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float16 model that computes in float32, tensor by tensor under the same names."""
    import onnx
    from onnx import numpy_helper

    wide = onnx.ModelProto.FromString(model.SerializeToString())

    def widened(tensor: Any) -> None:
        if tensor.data_type == _HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def visit(graph: Any) -> None:
        for tensor in getattr(graph, "initializer", ()):
            widened(tensor)
        for value in (*getattr(graph, "value_info", ()), *getattr(graph, "output", ())):
            if not isinstance(value, str) and value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = _FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    widened(attribute.t)
                if attribute.HasField("g"):
                    visit(attribute.g)
                if attribute.name in ("to", "dtype") and attribute.i == _HALF:
                    attribute.i = _FLOAT

    for graph in (wide.graph, *wide.functions):
        visit(graph)
    return wide


def representable(scales: NDArray[Any]) -> NDArray[np.float32]:
    """The smallest float16 numbers that are >= ``scales``.

    A scale that both halves and float32 hold exactly is the same scale for every runner, and one
    that is not smaller than asked clips nothing more.
    """
    wanted = np.asarray(scales, np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or (wanted > 65504).any():
        raise InputError("a quantisation scale is not a number in [0, 65504]")
    half = wanted.astype(np.float16)
    # Only where it is asked for: what follows the largest float16 is infinity, and a warning.
    np.nextafter(half, np.float16(np.inf), out=half, where=half < wanted)
    return np.maximum(half, np.finfo(np.float16).smallest_subnormal).astype(np.float32)


def quantize_weights(
    weights: NDArray[Any], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 weights and their scales, one an output channel.

    Args:
        weights: any rank.
        axis: of the output channels.

    Returns:
        ``(integers, scales)``: integers in [-127, 127] of the weights' shape, scales [channels];
        ``integers * scales`` differs from the weights by at most half a scale.
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    values = weights.astype(np.float64)
    scales = representable(np.abs(values).max(axis=others) / LEVELS)
    spread = scales.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
    return np.clip(np.rint(values / spread), -LEVELS, LEVELS).astype(np.int8), scales


def residual_operands(model: onnx.ModelProto, layers: Iterable[Layer]) -> dict[str, list[str]]:
    """Tensors that an Add sums with a layer's result -> names of these Adds.

    The other operand of a sum that can be fused into the layer, which wants it in int8: a tensor
    that a quantised layer reads anyway.
    """
    quantized = list(layers)
    read = {layer.source for layer in quantized}
    results = {layer.output for layer in quantized}
    made = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type != "Add" or node.domain:
            continue
        for branch, other in (tuple(node.input), tuple(node.input)[::-1]):
            producer = made.get(branch)
            if producer is not None and producer.op_type in ("LeakyRelu", "Relu", "PRelu"):
                branch = producer.input[0]
            if branch in results and other in read and other not in results:
                found.setdefault(other, []).append(node.name)
                break
    return found


def insert_qdq(
    model: onnx.ModelProto,
    layers: Collection[Layer],
    scales: Mapping[str, float],
    corrections: Mapping[str, NDArray[Any]] | None = None,
    *,
    residuals: bool = False,
) -> onnx.ModelProto:
    """A copy of a model whose ``layers`` run in INT8.

    Args:
        model: from `restorert.export.export_onnx`; what is not quantised keeps its types.
        layers: of `find_layers`.
        scales: of the tensors that the layers read, by their names.
        corrections: what is added to the layers' biases, by layer's name, [channels].
        residuals: let residual sums read the int8 form of tensors that a layer reads in int8.

    Raises:
        InputError: a tensor has no scale.
    """
    import onnx
    from onnx import helper, numpy_helper

    corrections = corrections or {}
    quantized = onnx.ModelProto.FromString(model.SerializeToString())
    graph = quantized.graph
    for opsets in (quantized.opset_import, *(f.opset_import for f in quantized.functions)):
        for imported in opsets:
            if imported.domain == "":  # the operators used mean the same in both
                imported.version = max(imported.version, OPSET_QDQ)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    by_node = {layer.output: layer for layer in layers}
    adds = {
        (add, tensor)
        for tensor, names in (residual_operands(model, layers) if residuals else {}).items()
        for add in names
    }
    # A concatenation is quantised part by part with one scale, and joins integers: half the bytes;
    # and OpenVINO 2026.4 loses the sign of a quantisation that it moves through one by itself.
    concatenations = {node.output[0]: node for node in model.graph.node if node.op_type == "Concat"}
    nodes: list[Any] = []
    dequantized: dict[str, str] = {}
    added: dict[str, Any] = {}

    def constant(name: str, values: NDArray[Any]) -> str:
        added[name] = numpy_helper.from_array(values, name)
        return name

    def int8_of(tensor: str, dtype: Any) -> str:
        if tensor not in scales:
            raise InputError(f"the calibration has no scale of the tensor {tensor!r}")
        if tensor not in dequantized:
            stem = tensor
            scale = constant(f"{stem}_scale", representable(np.array(scales[tensor])).astype(dtype))
            zero = constant("int8_zero", np.zeros((), np.int8))
            parts = concatenations[tensor].input if tensor in concatenations else [tensor]
            integers = [
                f"{stem}_int8_{i}" if len(parts) > 1 else f"{stem}_int8" for i in range(len(parts))
            ]
            for part, integer in zip(parts, integers, strict=True):
                nodes.append(
                    helper.make_node(
                        "QuantizeLinear", [part, scale, zero], [integer], f"{integer}_quantize"
                    )
                )
            if len(parts) > 1:
                joined = helper.make_node(
                    "Concat", integers, [f"{stem}_int8"], f"{stem}_int8_concat"
                )
                joined.attribute.extend(concatenations[tensor].attribute)
                nodes.append(joined)
            nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{stem}_int8", scale, zero],
                    [f"{stem}_dequantized"],
                    f"{stem}_dequantize",
                )
            )
            dequantized[tensor] = f"{stem}_dequantized"
        return dequantized[tensor]

    for original in graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        layer = by_node.get(node.output[0]) if node.output else None
        if layer is not None and node.input[1] == layer.weight:
            weights = numpy_helper.to_array(tensors[layer.weight])
            dtype = weights.dtype
            node.input[0] = int8_of(layer.source, dtype)
            if f"{layer.weight}_int8" not in added:
                integers, channel_scales = quantize_weights(weights, layer.axis)
                constant(f"{layer.weight}_int8", integers)
                constant(f"{layer.weight}_scale", channel_scales.astype(dtype))
                constant(f"{layer.weight}_zero", np.zeros(channel_scales.shape, np.int8))
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear",
                        [f"{layer.weight}_{part}" for part in ("int8", "scale", "zero")],
                        [f"{layer.weight}_dequantized"],
                        f"{layer.weight}_dequantize",
                        axis=layer.axis,
                    )
                )
            node.input[1] = f"{layer.weight}_dequantized"
            if layer.name in corrections and layer.op in ("Conv", "ConvTranspose", "Gemm"):
                bias = (
                    np.zeros(layer.out_channels)
                    if layer.bias is None
                    else (numpy_helper.to_array(tensors[layer.bias]).astype(np.float64))
                )
                corrected = (bias + corrections[layer.name]).astype(dtype)
                name = constant(f"{layer.name}.corrected_bias", corrected)
                del node.input[2:]
                node.input.append(name)
        elif node.op_type == "Add":
            for index, name in enumerate(node.input):
                if (node.name, name) in adds and name in dequantized:
                    node.input[index] = dequantized[name]
        nodes.append(node)
    nodes = _needed(nodes, {value.name for value in graph.output})
    read = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in tensors.values() if tensor.name in read]
    infos = [v for v in graph.value_info if v.name in read]
    copies = [type(t).FromString(t.SerializeToString()) for t in (*initializers, *infos)]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*copies[: len(initializers)], *added.values()])
    graph.value_info.extend(copies[len(initializers) :])
    return quantized


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that the tensors ``wanted`` follow from, in their order."""
    wanted = set(wanted)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
