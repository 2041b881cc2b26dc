"""Explicit quantisation: QuantizeLinear and DequantizeLinear nodes in an exported ONNX file.

The form that TensorRT asks for ("Explicit Quantization" in its documentation): symmetric, zero
point 0, one scale a tensor for activations, one an output channel for weights; a pair of nodes
before each input of a layer that runs in INT8 and none behind it, so that bias, activation and
residual sum can be fused into the layer. ONNX Runtime and OpenVINO take the same form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.quantize.graph import FLOAT, HALF, Editor, attribute, constants

if TYPE_CHECKING:
    import onnx

LEVELS = 127
"""int8 is used from -127 to 127, so that weights and their negatives quantise alike."""

LARGEST = 65504.0
"""float16's largest number."""

# The oldest opset whose QuantizeLinear takes float16.
_OPSET = 19

# Axis of the output channels in the weights.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}

_PICTURE_CHANNELS = 6


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with constant weights: what can run in INT8.

    Attributes:
        name: its weights' name without ``.weight``, as in the network's state dict; where the
            exporter folded the weights, the node's.
        op: Conv, ConvTranspose, MatMul or Gemm.
        source: name of the tensor it reads.
        weight, output: names of its weights and of its result.
        bias: name of its bias, or None.
        axis: of the output channels in the weights.
        shape: of the weights.
        groups: of a convolution.
        is_float32: whether it stays in float32 at every precision, see `NetworkSpec.fp32_parts`.
    """

    name: str
    op: str
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


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of an exported model that have constant weights, in the order they run in."""
    weights = constants(model)
    layers: list[Layer] = []
    taken: set[str] = set()
    is_half = any(tensor.data_type == HALF for tensor in weights.values())
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
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            axis = 0
        layers.append(
            Layer(
                name=name,
                op=node.op_type,
                source=node.input[0],
                weight=node.input[1],
                output=node.output[0],
                bias=node.input[2] if len(node.input) > 2 and node.input[2] in weights else None,
                axis=axis,
                shape=tuple(tensor.dims),
                groups=attribute(node, "group", 1),
                is_float32=is_half and tensor.data_type == FLOAT,
            )
        )
    return layers


def representable(scales: NDArray[Any]) -> NDArray[np.float32]:
    """The smallest float16 numbers that are >= ``scales``.

    A scale that float16 holds exactly is the same for every runner, and one that is not smaller
    than asked clips no more values.

    Raises:
        InputError: a scale is not a number in [0, 65504].
    """
    wanted = np.asarray(scales, np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or (wanted > LARGEST).any():
        raise InputError("a quantisation scale is not a number in [0, 65504]")
    half = wanted.astype(np.float16)
    # Elsewhere the largest float16 would become infinity, with a warning.
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
    steps = np.expand_dims(scales, others)
    return np.clip(np.rint(values / steps), -LEVELS, LEVELS).astype(np.int8), scales


def bias_of(layer: Layer, tensors: Mapping[str, onnx.TensorProto]) -> NDArray[np.float64]:
    """[channels] of the bias in ``tensors``; zeros for a layer without one."""
    from onnx import numpy_helper

    if layer.bias is None:
        return np.zeros(layer.out_channels)
    return numpy_helper.to_array(tensors[layer.bias]).astype(np.float64)


def residual_operands(model: onnx.ModelProto, layers: Iterable[Layer]) -> set[tuple[str, str]]:
    """Sums with a layer's result, as (name of the Add, its other operand).

    Only where a quantised layer reads the other operand anyway: a sum that is fused into the layer
    wants it in int8.
    """
    quantized = list(layers)
    read = {layer.source for layer in quantized}
    results = {layer.output for layer in quantized}
    made = {name: node for node in model.graph.node for name in node.output}
    found = set()
    for node in model.graph.node:
        if node.op_type != "Add" or node.domain:
            continue
        for branch, other in (tuple(node.input), tuple(node.input)[::-1]):
            producer = made.get(branch)
            if producer is not None and producer.op_type in ("LeakyRelu", "Relu", "PRelu"):
                branch = producer.input[0]
            if branch in results and other in read and other not in results:
                found.add((node.name, other))
                break
    return found


class Quantizer(Editor):
    """A copy of a model with int8 forms of what its layers read.

    Args:
        model: from `restorert.export.export_onnx`.
        scales: of the tensors that the layers read, by their names.
        corrections: what is added to the layers' biases, by layer's name, [channels].
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        scales: Mapping[str, float],
        corrections: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        super().__init__(model)
        for opsets in (self.model.opset_import, *(f.opset_import for f in self.model.functions)):
            for imported in opsets:
                if imported.domain == "":  # the operators used mean the same in both
                    imported.version = max(imported.version, _OPSET)
        self.dequantized: dict[str, str] = {}
        self._scales, self._corrections = scales, corrections or {}
        self._tensors = constants(model)
        # A concatenation is quantised part by part with one scale, and joins integers: half the
        # bytes; and OpenVINO 2026.4 loses the sign of a quantisation that it moves through one.
        self._joined = {
            node.output[0]: node for node in model.graph.node if node.op_type == "Concat"
        }

    def inputs(self, layer: Layer) -> list[str]:
        """Add what makes a layer's inputs in INT8; returns them: source, weights and any bias.

        Raises:
            InputError: the tensor that the layer reads has no scale.
        """
        from onnx import numpy_helper

        weights = numpy_helper.to_array(self._tensors[layer.weight])
        inputs = [self._activation(layer.source, weights.dtype), self._weights(layer, weights)]
        if layer.name in self._corrections and layer.op != "MatMul":
            bias = bias_of(layer, self._tensors) + self._corrections[layer.name]
            inputs.append(self.constant(f"{layer.name}.corrected_bias", bias.astype(weights.dtype)))
        elif layer.bias is not None:
            inputs.append(layer.bias)
        return inputs

    def _activation(self, tensor: str, dtype: Any) -> str:
        if tensor not in self._scales:
            raise InputError(f"the calibration has no scale of the tensor {tensor!r}")
        if tensor in self.dequantized:
            return self.dequantized[tensor]
        step = representable(np.array(self._scales[tensor])).astype(dtype)
        scale = self.constant(f"{tensor}_scale", step)
        zero = self.constant("int8_zero", np.zeros((), np.int8))
        join = self._joined.get(tensor)
        parts = [tensor] if join is None else list(join.input)
        whole = f"{tensor}_int8"
        integers = [f"{whole}_{i}" for i in range(len(parts))] if len(parts) > 1 else [whole]
        for part, integer in zip(parts, integers, strict=True):
            self.add("QuantizeLinear", [part, scale, zero], integer, f"{integer}_quantize")
        if join is not None and len(parts) > 1:
            axis = attribute(join, "axis", 0)
            self.add("Concat", integers, whole, f"{whole}_concat", axis=axis)
        self.dequantized[tensor] = self.add(
            "DequantizeLinear",
            [whole, scale, zero],
            f"{tensor}_dequantized",
            f"{tensor}_dequantize",
        )
        return self.dequantized[tensor]

    def _weights(self, layer: Layer, weights: NDArray[Any]) -> str:
        name = layer.weight
        if name not in self.dequantized:
            integers, scales = quantize_weights(weights, layer.axis)
            inputs = [
                self.constant(f"{name}_int8", integers),
                self.constant(f"{name}_scale", scales.astype(weights.dtype)),
                self.constant(f"{name}_zero", np.zeros(scales.shape, np.int8)),
            ]
            result, node = f"{name}_dequantized", f"{name}_dequantize"
            self.add("DequantizeLinear", inputs, result, node, axis=layer.axis)
            self.dequantized[name] = result
        return self.dequantized[name]


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
        layers: some of `find_layers`.
        scales, corrections: see `Quantizer`.
        residuals: let residual sums read the int8 form of tensors that a layer reads in int8.

    Raises:
        InputError: a tensor has no scale.
    """
    edit = Quantizer(model, scales, corrections)
    by_output = {layer.output: layer for layer in layers}
    sums = residual_operands(model, layers) if residuals else set()
    for node in edit.rebuild():
        layer = by_output.get(node.output[0])
        if layer is not None:
            quantized = edit.inputs(layer)
            node.input[:] = [*quantized, *node.input[len(quantized) :]]
        elif node.op_type == "Add":
            for index, name in enumerate(node.input):
                if (node.name, name) in sums and name in edit.dequantized:
                    node.input[index] = edit.dequantized[name]
        edit.graph.node.append(node)
    edit.prune()
    return edit.model
