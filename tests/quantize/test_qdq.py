"""Explicit quantisation against its arithmetic in numpy."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import restorert as rr
from restorert.errors import InputError
from restorert.quantize.graph import widen
from restorert.quantize.qdq import (
    find_layers,
    insert_qdq,
    quantize_weights,
    representable,
    residual_operands,
)
from restorert.quantize.session import onnx_session, run

numbers = st.floats(0, 6e4, allow_subnormal=False)


@given(numbers)
def test_scales_are_the_next_half(value: float) -> None:
    (found,) = representable(np.array([value]))
    assert found == np.float16(found)
    assert found >= value
    assert found > 0
    assert found <= max(value * (1 + 2**-10), 2**-24 + value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 1e6])
def test_scales_that_are_none(bad: float) -> None:
    with pytest.raises(InputError, match="scale"):
        representable(np.array([bad]))


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_in_closed_form(axis: int) -> None:
    weights = np.random.default_rng(0).normal(0, 0.02, (6, 4, 3, 3)).astype(np.float32)
    weights[2] = 0.0
    integers, scales = quantize_weights(weights, axis)
    for channel, scale in enumerate(scales):
        own = np.take(weights, channel, axis)
        assert scale == representable(np.array(np.abs(own).max() / 127))
        restored = np.take(integers, channel, axis) * np.float64(scale)
        assert np.abs(restored - own).max() <= scale / 2 * (1 + 1e-6)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() in (126, 127)


def _small_network() -> onnx.ModelProto:
    """Convolution, leaky ReLU, transposed convolution, concatenation, grouped convolution, sum."""
    rng = np.random.default_rng(1)
    tensors = {
        "a.weight": rng.normal(0, 0.3, (8, 8, 3, 3)),
        "a.bias": rng.normal(0, 0.1, 8),
        "up.weight": rng.normal(0, 0.3, (8, 8, 2, 2)),
        "b.weight": rng.normal(0, 0.3, (16, 8, 3, 3)),
        "b.bias": rng.normal(0, 0.1, 16),
    }
    nodes = [
        helper.make_node("Conv", ["input", "a.weight", "a.bias"], ["a"], "n1", pads=[1] * 4),
        helper.make_node("LeakyRelu", ["a"], ["r"], "n2", alpha=0.2),
        helper.make_node("Add", ["r", "input"], ["s"], "n3"),
        helper.make_node("ConvTranspose", ["s", "up.weight"], ["u"], "n4", strides=[2, 2]),
        helper.make_node("Concat", ["u", "u"], ["c"], "n5", axis=1),
        helper.make_node(
            "Conv", ["c", "b.weight", "b.bias"], ["output"], "n6", pads=[1] * 4, group=2
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 8, 6, 7])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 16, 12, 14])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _fake(x: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.rint(x / scale), -128, 127) * scale


def _convolve(x: np.ndarray, w: np.ndarray, bias: np.ndarray, groups: int = 1) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    n, _, height, width = x.shape
    out = np.zeros((n, w.shape[0], height, width))
    per_group, own = w.shape[0] // groups, w.shape[1]
    for o in range(w.shape[0]):
        first = o // per_group * own
        for i in range(3):
            for j in range(3):
                part = padded[:, first : first + own, i : i + height, j : j + width]
                out[:, o] += np.tensordot(part, w[o, :, i, j], (1, 0))
        out[:, o] += bias[o]
    return out


def test_the_file_computes_fake_quantisation() -> None:
    model = _small_network()
    layers = find_layers(model)
    assert [layer.name for layer in layers] == ["a", "up", "b"]
    assert [(layer.axis, layer.groups) for layer in layers] == [(0, 1), (1, 1), (0, 2)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [
        (8, 8),
        (8, 8),
        (16, 16),
    ]
    scales = {"input": 2.0**-6, "s": 2.0**-5, "c": 2.0**-4}
    corrections = {"b": np.linspace(-0.1, 0.1, 16), "up": np.linspace(-0.1, 0.1, 8)}
    quantized = insert_qdq(model, layers, scales, corrections)
    onnx.checker.check_model(quantized, full_check=True)
    x = np.random.default_rng(2).normal(0, 1, (1, 8, 6, 7)).astype(np.float32)
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    restored = {}
    for layer in layers:
        integers, spread = quantize_weights(w[layer.weight], layer.axis)
        shape = [-1 if i == layer.axis else 1 for i in range(4)]
        restored[layer.name] = integers * spread.reshape(shape).astype(np.float64)
    a = _convolve(_fake(x, scales["input"]), restored["a"], w["a.bias"])
    s = np.where(a > 0, a, 0.2 * a) + x
    u = np.zeros((1, 8, 12, 14))
    for i in range(2):
        for j in range(2):
            u[:, :, i::2, j::2] = np.einsum(
                "nchw,co->nohw", _fake(s, scales["s"]), restored["up"][:, :, i, j]
            )
    u += corrections["up"].reshape(1, -1, 1, 1)
    c = _fake(np.concatenate([u, u], axis=1), scales["c"])
    expected = _convolve(c, restored["b"], w["b.bias"] + corrections["b"], groups=2)
    (found,) = run(onnx_session(quantized), [x])
    # a value on the edge of a rounding could move by a step of 0.016; none of these does
    # measured: 2.9e-6
    assert np.abs(found - expected).max() < 1e-5
    plain = run(onnx_session(model), [x])[0]
    assert np.abs(plain - expected).max() > 1  # measured: 3.8


def test_the_form_of_the_file() -> None:
    model = _small_network()
    layers = find_layers(model)
    quantized = insert_qdq(model, layers, {"input": 0.1, "s": 0.1, "c": 0.1})
    tensors = {t.name: t for t in quantized.graph.initializer}
    made = {name: node for node in quantized.graph.node for name in node.output}
    zeros = [tensor for name, tensor in tensors.items() if name.endswith("zero")]
    assert len(zeros) == 1 + len(layers)  # of the activations, and of each weight
    for zero in zeros:
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    products = [n for n in quantized.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    assert len(products) == len(layers)
    for node in products:
        assert [made[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        weights = made[node.input[1]]
        assert tensors[weights.input[0]].data_type == TensorProto.INT8
    # activation and sum follow in high precision
    (add,) = [n for n in quantized.graph.node if n.op_type == "Add"]
    assert [made[name].op_type if name in made else name for name in add.input] == [
        "LeakyRelu",
        "input",
    ]
    assert made[made[add.input[0]].input[0]].op_type == "Conv"
    # the float weights are gone, and the concatenation joins integers
    assert not {"a.weight", "up.weight", "b.weight"} & set(tensors)
    (joined,) = [n for n in quantized.graph.node if n.op_type == "Concat"]
    assert [made[name].op_type for name in joined.input] == ["QuantizeLinear"] * 2
    assert len({made[name].input[1] for name in joined.input}) == 1


def test_residual_sums() -> None:
    model = _small_network()
    layers = find_layers(model)
    assert residual_operands(model, layers) == {("n3", "input")}
    scales = {"input": 0.1, "s": 0.1, "c": 0.1}
    quantized = insert_qdq(model, layers, scales, residuals=True)
    (add,) = [n for n in quantized.graph.node if n.op_type == "Add"]
    assert list(add.input) == ["r", "input_dequantized"]
    onnx.checker.check_model(quantized, full_check=True)


def test_a_tensor_without_a_scale() -> None:
    model = _small_network()
    with pytest.raises(InputError, match="no scale of the tensor 's'"):
        insert_qdq(model, find_layers(model), {"input": 0.1})


def test_widened_computes_the_same(
    half_file: Path, network: rr.networks.RestorationNetwork
) -> None:
    half = onnx.load(half_file)
    wide = widen(half)
    onnx.checker.check_model(wide, full_check=True)
    assert not [t for t in wide.graph.initializer if t.data_type == TensorProto.FLOAT16]
    x = np.random.default_rng(0).random((1, 3, 16, 20), np.float32)
    (found,) = run(onnx_session(wide), [x])
    rounded = copy.deepcopy(network).half().float()
    # measured: 1.2e-7
    np.testing.assert_allclose(found, rounded(torch.from_numpy(x)), rtol=0, atol=4e-7)
    assert np.abs(found - network(torch.from_numpy(x)).numpy()).max() > 5e-5  # measured: 1.3e-4
    assert [layer.name for layer in find_layers(wide)] == [
        layer.name for layer in find_layers(half)
    ]
