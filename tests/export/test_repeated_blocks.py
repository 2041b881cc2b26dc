"""Blocks traced once a kind: which are of one kind, and that nothing of the trick remains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import restorert as rr
from restorert.export import repeated_blocks
from restorert.export.repeated_blocks import blocks_replaced
from restorert.networks.module import RepeatedBlock, RestorationNetwork
from restorert.spec import NetworkConfig, NetworkSpec


class Block(RepeatedBlock):
    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.factor = factor
        self.register_buffer("shift", torch.randn(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # A constant of the block's own, and a part of a weight.
        bias = self.conv.bias[: x.shape[1]] * self.factor + self.shift
        return x + torch.relu(self.conv(x)) * bias[:, None, None] + x.new_full((2, 1, 1), 0.5)[1:]


class Network(RestorationNetwork):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(Block(3, 2.0), Block(3, 2.0), Block(3, 3.0), Block(3, 2.0))
        self.wide = nn.Sequential(nn.Conv2d(3, 6, 1), Block(6, 2.0), nn.Conv2d(6, 3, 1))
        self.spec = NetworkSpec("blocks", "blocks", "test", "none", "none", NetworkConfig())
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(self.wide[0].weight.dtype)
        return self.wide(self.blocks(x)).to(image.dtype) + image


def test_kinds_are_of_equal_attributes_and_shapes() -> None:
    network = Network()
    with blocks_replaced(network) as kinds:
        assert [kind.block for kind in kinds] == [
            network.blocks[0],
            network.blocks[2],
            network.wide[1],
        ]
        assert "forward" in vars(network.blocks[1])
    with pytest.raises(KeyError), blocks_replaced(network):
        raise KeyError
    assert not any("forward" in vars(module) for module in network.modules())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_file_is_as_if_every_block_had_been_traced(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network()
    once = onnx.load(rr.export_onnx(network, tmp_path / "once.onnx", precision=precision))
    monkeypatch.setattr(repeated_blocks, "RepeatedBlock", type("None", (nn.Module,), {}))
    each = onnx.load(rr.export_onnx(network, tmp_path / "each.onnx", precision=precision))
    assert [n.op_type for n in once.graph.node] == [n.op_type for n in each.graph.node]
    used = {name for node in once.graph.node for name in node.input}
    assert {tensor.name for tensor in once.graph.initializer} <= used
    assert {opset.domain for opset in once.opset_import} == {""}
    x = torch.rand(2, 3, 6, 10)
    found = [
        onnxruntime.InferenceSession(str(tmp_path / name)).run(None, {"input": x.numpy()})[0]
        for name in ("once.onnx", "each.onnx")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    if precision == "fp32":
        # measured: 7.2e-7 of outputs up to 2.8
        np.testing.assert_allclose(found[0], network(x), rtol=0, atol=2e-6)
