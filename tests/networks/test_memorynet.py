"""MemoryNet against the authors' figures; its memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import onnx
import pytest
import torch
from official import assert_equals_official, load_seeded, seeded_picture, variants_recorded
from torch import Tensor

import restorert as rr
from restorert import ops
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.memorynet import FAMILY, Memory

SMALL = FAMILY.small
GAIN = 0.7


# measured worst: samples 4.2e-7 of outputs up to 0.4, means and deviations 8.2e-9
@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("memorynet"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("memorynet", name, tolerance=2e-6, gain=GAIN)


def test_variant() -> None:
    """Defaults of the authors' MemoryNet.__init__ and MemModule; training.yml's TRAIN_PS."""
    spec = rr.network_spec("memorynet")
    c = spec.config
    assert (c.width, c.unet_growth, c.orsnet_growth, c.cabs, c.reduction) == (40, 20, 16, 8, 4)
    assert (c.classes, c.prototypes, c.parts, c.shrink) == (10, 2, 5, 0.0025)
    assert (spec.size_multiple, spec.padding_mode, spec.training_patch) == (8, "reflect", 256)


def test_counts() -> None:
    """papers.toml and performance figures of the official code: 3.64 M, 141 GMACs at 256x256."""
    with torch.device("meta"):
        net = rr.create_network("memorynet")
    assert round(count_parameters(net) / 1e6, 2) == 3.64
    assert round(count_macs(net, (1, 3, 256, 256)).exact / 1e9) == 141


def _memory(net: torch.nn.Module) -> Memory:
    return cast("Memory", net.get_submodule("memory.memory"))


def _expected(memory: Memory) -> tuple[Tensor, Tensor]:
    state = {name: tensor.detach().float() for name, tensor in memory.state_dict().items()}
    return ops.derive_prototypes(
        state["weight"],
        state["reweight_layer_part.weight"],
        state["reweight_layer_part.bias"],
        state["reweight_layer_ins.weight"],
        state["reweight_layer_ins.bias"],
    )


def _current(memory: Memory) -> None:
    for found, expected in zip(memory.derived(), _expected(memory), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # measured: 0


def test_prototypes_follow_the_weights() -> None:
    net = rr.create_network("memorynet", **SMALL)
    memory = _memory(net)
    first = memory.derived()
    _current(memory)
    assert len(net.state_dict()) == len(list(net.named_parameters(remove_duplicate=False)))

    load_seeded(net)
    assert not torch.equal(memory.derived()[0], first[0])
    _current(memory)
    memory.weight.mul_(2)  # in place
    _current(memory)
    memory.reweight_layer_ins.bias = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    _current(memory)
    memory.weight.data = memory.weight.data.flip(0)
    _current(memory)
    net.load_state_dict(
        {name: tensor.clone() + 0.1 for name, tensor in net.state_dict().items()}, assign=True
    )
    net.requires_grad_(False)
    _current(memory)
    memory.weight.data.mul_(0.5)  # as averages of weights do
    _current(memory)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_memory_stays_float32(dtype: torch.dtype) -> None:
    net = load_seeded(rr.create_network("memorynet", **SMALL), gain=GAIN)
    x = seeded_picture(24, 40)
    with torch.no_grad():
        expected = net.stages(x)
        read = _memory(net)(x)
    half = copy.deepcopy(net).to(dtype)
    assert half.get_parameter("tail.weight").dtype == dtype
    assert {p.dtype for p in _memory(half).parameters()} == {torch.float32}
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(_memory(half)(x), read, strict=True))
        for picture, other in zip(half.stages(x), expected, strict=True):
            assert picture.dtype == torch.float32
            # measured worst: fp16 2.5e-4, bf16 2.3e-3
            limit = {torch.float16: 6e-4, torch.bfloat16: 6e-3}[dtype]
            assert (picture - other).abs().max() < limit
    # A float64 network computes in float64.
    double = copy.deepcopy(net).double()
    with torch.no_grad():
        out = double(x.double())
    assert out.dtype == torch.float64
    # measured worst: 7.5e-8 of outputs up to 0.17
    torch.testing.assert_close(out.float(), expected[-1], rtol=0, atol=5e-7)


def test_training_reaches_every_weight_of_the_memory() -> None:
    net = rr.create_network("memorynet", **SMALL).train().requires_grad_(True)
    net(seeded_picture(16, 16)).square().mean().backward()
    for name, parameter in _memory(net).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, name
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    net.eval()
    with torch.no_grad():
        _current(_memory(net))


def test_each_stage_sees_its_own_memory() -> None:
    net = load_seeded(rr.create_network("memorynet", **SMALL), gain=GAIN)
    for name, parameter in net.named_parameters():
        if name.startswith(("sam12.conv2", "sam23.conv2", "tail")):
            parameter.zero_()  # no residual: what is left is what it is added to
    x = seeded_picture(16, 24)
    with torch.no_grad():
        semantic, instance, _ = _memory(net)(x)
        pictures = net.stages(x)
    for found, expected in zip(pictures, (instance, semantic, semantic), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_prototypes_are_constants_of_the_exported_file(tmp_path: Path) -> None:
    net = rr.create_network("memorynet", **SMALL, stages=1)
    model = onnx.load(rr.export_onnx(net, tmp_path / "a.onnx", precision="fp16"))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    (read,) = [node for node in model.graph.node if node.op_type == "memory_read"]
    assert read.input[0] == "input"
    memories = [onnx.numpy_helper.to_array(constants[name]) for name in read.input[1:]]
    for found, expected in zip(
        memories, (_memory(net).weight, *_memory(net).derived()), strict=True
    ):
        # measured: 3.0e-8
        torch.testing.assert_close(torch.tensor(found), expected.detach(), rtol=0, atol=1e-7)
    # The cache does not hold what tracing saw.
    assert net(seeded_picture(8, 8)).isfinite().all()


def test_checkpoints_of_the_authors_load(tmp_path: Path) -> None:
    net = load_seeded(rr.create_network("memorynet"))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}}, tmp_path / "model.pth")
    again = rr.load_network(tmp_path / "model.pth")
    assert again.spec == net.spec
    x = seeded_picture(8, 16)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


@pytest.mark.parametrize(
    "config",
    [{"classes": 0}, {"parts": 2.5}, {"classes": 99}, {"shrink": -1.0}, {"in_channels": 17}],
)
def test_nonsense_is_refused_in_one_line(config: dict[str, float]) -> None:
    with pytest.raises(rr.RestorertError, match=r"MemoryNet needs classes, .*, not ") as error:
        rr.create_network("memorynet", **config)
    assert "\n" not in str(error.value)
    with pytest.raises(rr.RestorertError, match=r"MemoryNet needs in_channels"):
        rr.create_network("memorynet", width=1)


def test_other_tensors_are_no_memorynet() -> None:
    good = rr.create_network("memorynet", **SMALL).state_dict()
    assert FAMILY.config_from_state_dict(good) is not None
    for name in ("weight", "reweight_layer_part.bias", "reweight_layer_ins.bias"):
        for tensor in (torch.tensor(1.0), torch.zeros(0)):
            assert FAMILY.config_from_state_dict({**good, f"memory.memory.{name}": tensor}) is None
    assert FAMILY.config_from_state_dict({}) is None
