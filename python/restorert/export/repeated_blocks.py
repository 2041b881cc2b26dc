"""Traces one block of each kind instead of all of a network's dozens of blocks.

Tracing with free sizes takes five times as long as with fixed ones: two minutes for a Restormer of
44 blocks, which this cuts to a fifth. A network's `RepeatedBlock`s are first traced as calls of
unknown operators; then one block of each kind is traced by itself, with its weights as inputs, and
replaces every call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from restorert.networks.module import RepeatedBlock

if TYPE_CHECKING:
    import onnx

# Domain of the calls that stand for blocks until they are replaced.
_DOMAIN = "restorert.blocks"

Trace = Callable[[nn.Module, tuple[Tensor, ...], Any], "onnx.ModelProto"]
"""(module, example inputs, dynamic shapes) -> model, not optimised."""


@dataclass
class BlockKind:
    """Blocks that differ only in the values of their weights.

    Attributes:
        block: one of them.
        channels, dtype: of its input.
    """

    block: RepeatedBlock
    channels: int = 0
    dtype: torch.dtype = torch.float32


@contextlib.contextmanager
def blocks_replaced(network: nn.Module) -> Iterator[list[BlockKind]]:
    """Replace every repeated block of ``network`` by one call, for `put_blocks_back`."""
    kinds: list[BlockKind] = []
    numbers: dict[Any, int] = {}
    blocks = [module for module in network.modules() if isinstance(module, RepeatedBlock)]
    for block in blocks:
        signature = _signature(block)
        if signature not in numbers:
            numbers[signature] = len(kinds)
            kinds.append(BlockKind(block))
        number = numbers[signature]
        object.__setattr__(block, "forward", _call(block, number, kinds[number]))
    try:
        yield kinds
    finally:
        for block in blocks:
            object.__delattr__(block, "forward")


def _call(block: RepeatedBlock, number: int, kind: BlockKind) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        kind.channels, kind.dtype = int(x.shape[1]), x.dtype
        name = f"{_DOMAIN}::kind_{number}"
        inputs = [x, *_tensors(block).values()]
        return torch.onnx.ops.symbolic(name, inputs, {}, dtype=x.dtype, shape=x.shape, version=1)

    return forward


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _signature(block: nn.Module) -> Any:
    """A key that is equal for blocks that differ only in the values of their tensors."""
    simple = (bool, int, float, str, tuple, type(None))
    modules = tuple(
        (
            name,
            type(module),
            tuple(
                (key, value)
                for key, value in sorted(vars(module).items())
                if not key.startswith("_") and isinstance(value, simple)
            ),
        )
        for name, module in block.named_modules()
    )
    tensors = tuple(
        (name, tuple(tensor.shape), tensor.dtype) for name, tensor in _tensors(block).items()
    )
    return modules, tensors


class _Functional(nn.Module):
    """A block that takes its tensors as inputs."""

    def __init__(self, block: RepeatedBlock) -> None:
        super().__init__()
        self._block = (block,)  # the tuple keeps it from being registered as a submodule
        self._names = list(_tensors(block))

    def forward(self, x: Tensor, *tensors: Tensor) -> Tensor:
        named = dict(zip(self._names, tensors, strict=True))
        return torch.func.functional_call(self._block[0], named, (x,))


def put_blocks_back(model: onnx.ModelProto, kinds: list[BlockKind], trace: Trace) -> None:
    """Replace the calls that stand for blocks by the nodes of the blocks, in place."""
    bodies: dict[str, onnx.GraphProto] = {}
    domains = {opset.domain: opset for opset in model.opset_import if opset.domain != _DOMAIN}
    for number, kind in enumerate(kinds):
        traced = _trace_block(kind, trace)
        domains = {opset.domain: opset for opset in traced.opset_import} | domains
        body = traced.graph
        names = {tensor.name: f"kind_{number}_{tensor.name}" for tensor in body.initializer}
        for tensor in body.initializer:
            tensor.name = names[tensor.name]
        _rename(body.node, names)
        model.graph.initializer.extend(body.initializer)
        bodies[f"kind_{number}"] = body
    nodes = []
    for node in model.graph.node:
        copy = type(node).FromString(node.SerializeToString())
        calls_block = node.domain == _DOMAIN
        nodes += _body_of_call(copy, bodies[node.op_type]) if calls_block else [copy]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    opsets = [type(opset).FromString(opset.SerializeToString()) for opset in domains.values()]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


def _trace_block(kind: BlockKind, trace: Trace) -> onnx.ModelProto:
    from torch.export import Dim

    tensors = tuple(tensor.detach() for tensor in _tensors(kind.block).values())
    device = tensors[0].device
    x = torch.zeros(2, kind.channels, 6, 4, dtype=kind.dtype, device=device)
    free = {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}
    dynamic_shapes = (free, tuple(None for _ in tensors))
    return trace(_Functional(kind.block), (x, *tensors), dynamic_shapes)


def _body_of_call(call: onnx.NodeProto, body: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of ``body``, connected to the inputs and outputs of ``call``."""
    outside = dict(zip((v.name for v in body.input), call.input, strict=True))
    outside |= dict(zip((v.name for v in body.output), call.output, strict=True))
    nodes = [type(node).FromString(node.SerializeToString()) for node in body.node]
    inside = {name for node in nodes for name in node.output} - outside.keys()
    _rename(nodes, outside | {name: f"{call.name}_{name}" for name in inside})
    for node in nodes:
        node.name = f"{call.name}_{node.name}"
    return nodes


def _rename(nodes: Any, names: dict[str, str]) -> None:
    for node in nodes:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
