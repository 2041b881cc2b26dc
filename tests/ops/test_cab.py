"""MPRNet's and MemoryNet's channel attention block, from end to end: convolutions and fused op."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert import ops
from restorert.errors import InputError
from restorert.export import onnx_export
from restorert.ops.channel_attention import SPEC
from restorert.testing import max_error

LAYOUTS = (torch.contiguous_format, torch.channels_last)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Block(nn.Module):
    """A CAB as the networks call the op: convolution, activation, convolution, attention."""

    def __init__(
        self, channels: int, reduction: int, activation: nn.Module, *, bias: bool = False
    ) -> None:
        super().__init__()
        hidden = channels // reduction
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.activation = activation
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.down = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.up = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        r = self.second(self.activation(self.first(x)))
        biases = (self.down.bias, self.up.bias)
        return ops.channel_attention(
            r, x, self.down.weight.flatten(1), self.up.weight.flatten(1), *biases
        )


class Gate(Block):
    """The block without its residual sum, for the form of the op without ``x``."""

    def forward(self, x: Tensor) -> Tensor:
        r = self.second(self.activation(self.first(x)))
        return ops.channel_attention(
            r, None, self.down.weight.flatten(1), self.up.weight.flatten(1)
        )


def official(block: Block, x: Tensor) -> Tensor:
    """The block by its formula in float64, written with torch's own layers."""
    weights = {k: v.detach().double().cpu() for k, v in block.state_dict().items()}

    def convolve(name: str, values: Tensor, padding: int) -> Tensor:
        bias = weights.get(f"{name}.bias")
        return F.conv2d(values, weights[f"{name}.weight"], bias, padding=padding)

    wide = x.detach().double().cpu()
    slope = weights.get("activation.weight", torch.tensor(0.25, dtype=torch.float64))
    middle = convolve("first", wide, 1)
    r = convolve("second", torch.where(middle > 0, middle, middle * slope), 1)
    pooled = r.mean(dim=(2, 3), keepdim=True)
    scale = torch.sigmoid(convolve("up", torch.relu(convolve("down", pooled, 0)), 0))
    out = r * scale
    return out if isinstance(block, Gate) else out + wide


def make_block(
    channels: int,
    reduction: int,
    *,
    kind: type[Block] = Block,
    bias: bool = False,
    leaky: bool = False,
) -> Block:
    torch.manual_seed(0)
    block = kind(channels, reduction, nn.LeakyReLU(0.25) if leaky else nn.PReLU(), bias=bias)
    with torch.no_grad():
        for name in ("down", "up"):  # scales that differ from one half
            getattr(block, name).weight.normal_()
    return block.eval()


# Channels and reduction of MPRNet for deblurring, denoising and deraining (and MemoryNet).
WIDTHS = [(96, 4), (80, 4), (40, 4), (60, 4), (64, 16)]
# Largest error, relative to max(1, |y|). Measured on a CPU: float32 1.3e-6, bfloat16 5.7e-3 and
# float16 6.7e-4, where the convolutions round their results to the dtype as well; ONNX Runtime and
# OpenVINO in float32 5.7e-7.
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 1.2e-3}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("channels", "reduction"), WIDTHS)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_block(
    device: str, channels: int, reduction: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    block = make_block(channels, reduction, leaky=channels == 80)
    block = block.to(device=device, dtype=dtype, memory_format=layout)
    x = torch.randn(2, channels, 24, 40, generator=torch.Generator().manual_seed(1))
    x = x.to(device=device, dtype=dtype).contiguous(memory_format=layout)
    with torch.inference_mode():
        out = block(x)
    assert out.is_contiguous(memory_format=layout)
    assert max_error(out, official(block, x)) <= LIMITS[dtype]


def test_gradients_reach_the_convolutions() -> None:
    block = make_block(8, 4, bias=True).double()
    x = torch.randn(1, 8, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(block, x.requires_grad_())
    block(x).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in block.parameters())


def test_sums_of_the_convolution_take_the_place_of_the_squeeze() -> None:
    generator = torch.Generator().manual_seed(2)
    block = make_block(40, 4)
    r = torch.randn(2, 40, 9, 12, generator=generator)
    weights = block.down.weight.flatten(1), block.up.weight.flatten(1)
    expected = ops.channel_attention(r, r, *weights)
    found = ops.channel_attention(r, r, *weights, sums=r.sum(dim=(2, 3)))
    # measured worst: 4.8e-7 of outputs up to 6.7
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)
    other = ops.channel_attention(r, r, *weights, sums=torch.zeros(2, 40))
    torch.testing.assert_close(other, 1.5 * r, rtol=0, atol=1e-6)  # sigmoid(0) = 0.5


def export(block: Block, *, functions: bool, path: Path) -> onnx.ModelProto:
    """The block in ONNX, as onnx_export makes it of a network."""
    channels = block.first.in_channels
    dims = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    with torch.no_grad():
        exported = torch.export.export(
            block, (torch.zeros(2, channels, 6, 4),), dynamic_shapes=(dims,)
        ).run_decompositions(
            {torch.ops.restorert.channel_attention.default: onnx_export._function_call(SPEC)}
        )
        program = torch.onnx.export(
            exported, (), dynamo=True, opset_version=18, optimize=False, verbose=False
        )
    model = program.model_proto
    called = any(node.domain == ops.DOMAIN for node in model.graph.node)
    assert called == functions
    if called:
        model.functions.append(onnx.parser.parse_function(SPEC.onnx_function))
    onnx.save(model, path)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "functions"),
    [
        ({}, True),
        ({"bias": True}, False),
        ({"kind": Gate}, False),
    ],
    ids=["residual", "biases", "no residual"],
)
def test_under_onnx_runtime_and_openvino(
    form: dict[str, Any], functions: bool, tmp_path: Path
) -> None:
    """The networks' form is a call of the function, every other one plain operators."""
    block = make_block(40, 4, **form)
    model = export(block, functions=functions, path=tmp_path / "block.onnx")
    x = torch.randn(1, 40, 17, 23, generator=torch.Generator().manual_seed(1))
    expected = official(block, x)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert max_error(torch.from_numpy(found), expected) <= LIMITS[torch.float32]

    openvino = pytest.importorskip("openvino")
    inlined = onnx.inliner.inline_local_functions(model)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(inlined.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = torch.from_numpy(compiled(x.numpy())[0])
    assert max_error(found, expected) <= LIMITS[torch.float32]


@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_rtx_builds_the_function(half: bool) -> None:
    """No GPU is needed to parse and build."""
    trt = pytest.importorskip("tensorrt_rtx")
    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    function = onnx.parser.parse_function(SPEC.onnx_function)
    shapes = {
        "r": ["n", 40, "h", "w"],
        "x": ["n", 40, "h", "w"],
        "w_down": [10, 40],
        "w_up": [40, 10],
    }
    values = [onnx.helper.make_tensor_value_info(k, kind, v) for k, v in shapes.items()]
    node = onnx.helper.make_node(function.name, list(shapes), ["y"], domain=ops.DOMAIN)
    out = onnx.helper.make_tensor_value_info("y", kind, shapes["r"])
    opsets = [onnx.helper.make_opsetid(ops.DOMAIN, 1), *function.opset_import]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "call", values, [out]),
        functions=[function],
        opset_imports=opsets,
        ir_version=10,
    )
    onnx.checker.check_model(model)
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(model.SerializeToString()), parser.get_error(0).desc()
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    for name in ("r", "x"):
        profile.set_shape(name, (1, 40, 8, 8), (1, 40, 64, 64), (2, 40, 128, 128))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


R = torch.zeros(2, 4, 3, 5)
DOWN = torch.zeros(1, 4)
UP = torch.zeros(4, 1)
SUMS = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((R[0], R, DOWN, UP), r"argument 'r' has 3 dimensions; expected \[N, C, H, W\]"),
        ((R, R[:1], DOWN, UP), r"argument 'x' has shape \[1, 4, 3, 5\]; expected \[2, 4, 3, 5\]"),
        ((R, R.half(), DOWN, UP), r"argument 'x' has dtype torch.float16; expected torch.float32"),
        ((R, R, DOWN[:, :3], UP), r"argument 'w_down' has shape \[1, 3\]; expected \[R, 4\]"),
        ((R, R, DOWN[:0], UP[:, :0]), r"argument 'w_down' has shape \[0, 4\].* R >= 1"),
        ((R, R, DOWN[0], UP), r"argument 'w_down' has shape \[4\]"),
        ((R, R, DOWN, UP.T), r"argument 'w_up' has shape \[1, 4\]; expected \[4, 1\]"),
        (
            (R, R, DOWN, UP, UP[:1, 0]),
            r"argument 'b_up' is missing; expected both biases or neithe",
        ),
        ((R, R, DOWN, UP, None, UP[:, 0]), r"argument 'b_down' is missing; expected both biases"),
        (
            (R, R, DOWN, UP, UP[:, 0], UP[:, 0]),
            r"argument 'b_down' has shape \[4\]; expected \[1\]",
        ),
        ((R, R, DOWN, UP, UP[0], UP), r"argument 'b_up' has shape \[4, 1\]; expected \[4\]"),
        ((R.int(), None, DOWN, UP), r"argument 'r' has dtype int32"),
        ((R, R, DOWN.half(), UP), r"argument 'w_down' has dtype float16; expected float32"),
        ((R, R, DOWN, UP.int()), r"argument 'w_up' has dtype int32"),
        ((R.to_sparse(), R, DOWN, UP), r"argument 'r' is sparse"),
        ((R, R.to("meta"), DOWN, UP), r"argument 'x' is on meta"),
    ],
)
def test_misuse_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"channel_attention: {message}") as caught:
        ops.channel_attention(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (SUMS[:1], r"argument 'sums' has shape \[1, 4\]; expected \[2, 4\]"),
        (SUMS.half(), r"argument 'sums' has dtype float16; expected float32"),
        (SUMS.to("meta"), r"argument 'sums' is on meta"),
    ],
)
def test_misuse_of_sums_is_one_line(sums: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ops.channel_attention(R, R, DOWN, UP, sums=sums)
