"""Edits of ONNX graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from restorert.quantize.graph import Editor
from restorert.quantize.session import onnx_session


@pytest.fixture
def model() -> onnx.ModelProto:
    """2 x + 1, and a node that nothing reads."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["double"]),
            helper.make_node("Neg", ["spare"], ["nowhere"]),
            helper.make_node("Add", ["double", "one"], ["y"]),
        ],
        "small",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.float32(number), name)
            for name, number in (("one", 1), ("two", 2), ("spare", 3))
        ],
        value_info=[
            value("double", TensorProto.FLOAT, [2]),
            value("nowhere", TensorProto.FLOAT, []),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _run(model: onnx.ModelProto) -> list[np.ndarray]:
    return onnx_session(model).run(None, {"x": np.array([3, 4], np.float32)})


def test_nodes_before_and_behind(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    edit = Editor(model)
    for node in edit.rebuild():
        if node.op_type == "Add":
            ten = edit.constant("ten", np.float32(10))
            assert edit.constant("ten", np.float32(11)) == ten == "ten"
            node.input[0] = edit.add("Mul", ["double", ten], "twenty_fold", "scale")
            node.output[0] = "wide"
            edit.graph.node.append(node)
            edit.add("Neg", ["wide"], "y")
        else:
            edit.graph.node.append(node)
    edit.tap("ReduceMax", ["double"], "largest", keepdims=0)
    assert [node.op_type for node in edit.graph.node] == [
        *("Mul", "Neg", "Mul", "Add", "Neg", "ReduceMax"),
    ]
    assert edit.graph.node[2].name == "scale"
    y, largest = _run(edit.model)
    assert y.tolist() == [-61, -81]
    assert largest == 8
    assert model.SerializeToString() == before


def test_pruned_to_what_the_outputs_need(model: onnx.ModelProto) -> None:
    edit = Editor(model)
    edit.prune()
    assert [node.op_type for node in edit.graph.node] == ["Mul", "Add"]
    assert [tensor.name for tensor in edit.graph.initializer] == ["one", "two"]
    assert [value.name for value in edit.graph.value_info] == ["double"]
    onnx.checker.check_model(edit.model, full_check=True)
    assert _run(edit.model)[0].tolist() == [7, 9]
