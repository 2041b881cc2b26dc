"""Changes to ONNX graphs, made on a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

FLOAT, HALF = 1, 10  # onnx.TensorProto's


class Editor:
    """A copy of a model to change.

    Attributes:
        model: the copy.
        graph: its graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = _copy(model)
        self.graph = self.model.graph
        self._constants: set[str] = set()

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant, unless one of this name was added before; returns ``name``."""
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants.add(name)
            self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def add(
        self, op: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any
    ) -> str:
        """Add a node behind those that are there; returns ``output``."""
        from onnx import helper

        self.graph.node.append(helper.make_node(op, inputs, [output], name or None, **attributes))
        return output

    def tap(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """`add`, and return the result from the model, too."""
        from onnx import helper

        self.graph.output.append(helper.make_empty_tensor_value_info(output))
        return self.add(op, inputs, output, **attributes)

    def rebuild(self) -> Iterator[onnx.NodeProto]:
        """Take all nodes out; yield one after the other, to be changed and appended again."""
        nodes = [_copy(node) for node in self.graph.node]
        del self.graph.node[:]
        yield from nodes

    def prune(self) -> None:
        """Remove what no output of the model follows from."""
        wanted = {value.name for value in self.graph.output}
        nodes: list[Any] = []
        for node in reversed(list(self.rebuild())):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.append(node)
        self.graph.node.extend(reversed(nodes))
        for values in (self.graph.initializer, self.graph.value_info):
            kept = [_copy(value) for value in values if value.name in wanted]
            del values[:]
            values.extend(kept)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole number among a node's attributes."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The constant tensors of a model by their names."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def widen(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float16 model that computes in float32, its local functions inlined.

    Tensors outside of the functions keep their names.
    """
    import onnx.inliner
    from onnx import numpy_helper

    wide: onnx.ModelProto = onnx.inliner.inline_local_functions(model)

    def widened(tensor: Any) -> None:
        if tensor.data_type == HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def visit(graph: Any) -> None:
        for tensor in graph.initializer:
            widened(tensor)
        for value in (*graph.value_info, *graph.output):
            if value.type.tensor_type.elem_type == HALF:
                value.type.tensor_type.elem_type = FLOAT
        for node in graph.node:
            for a in node.attribute:
                if a.HasField("t"):
                    widened(a.t)
                if a.HasField("g"):
                    visit(a.g)
                if a.name in ("to", "dtype") and a.i == HALF:
                    a.i = FLOAT

    visit(wide.graph)
    return wide
