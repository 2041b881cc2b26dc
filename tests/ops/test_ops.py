"""Every registered op: all cases, dtypes, layouts and devices against the float64 reference."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.helper
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor

from restorert import ops
from restorert.errors import InputError, RunnerUnavailableError
from restorert.ops import SPECS, OpCase, OpSpec
from restorert.testing import max_error
from restorert.testing.op_runner import (
    DTYPES,
    LAYOUTS,
    error_to_float64,
    every_case,
    in_layout,
    results,
)

CPU = torch.device("cpu")
SPEC_IDS = [spec.name for spec in SPECS]
CASES = [
    pytest.param(spec, *each, id=f"{spec.name}-{each[0]}-{each[1]}-{each[2]}".replace("torch.", ""))
    for spec in SPECS
    for each in every_case(spec)
]
each_op = pytest.mark.parametrize("spec", SPECS, ids=SPEC_IDS)
each_norm = pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if spec.name in ("half_instance_norm", "layer_norm_2d")]
)
each_device = pytest.mark.parametrize(
    "device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)], ids=str
)


def _inputs(spec: OpSpec, case: OpCase, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    return spec.make_inputs(case, dtype, device, 0)


@pytest.mark.parametrize(("spec", "case", "dtype", "layout"), CASES)
def test_cpu_kernel(
    spec: OpSpec, case: OpCase, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    inputs = in_layout(_inputs(spec, case, dtype, CPU), layout)
    assert error_to_float64(spec, spec.op, inputs) <= spec.tolerances[dtype]
    for out in results(spec.op(**inputs)):
        assert out.ndim != 4 or out.is_contiguous(memory_format=layout)


@pytest.mark.gpu
@pytest.mark.parametrize(("spec", "case", "dtype", "layout"), CASES)
def test_cuda_kernel(
    spec: OpSpec, case: OpCase, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    inputs = in_layout(_inputs(spec, case, dtype, torch.device("cuda")), layout)
    assert error_to_float64(spec, spec.op, inputs) <= spec.tolerances[dtype]
    first, second = results(spec.op(**inputs)), results(spec.op(**inputs))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())  # the same result run after run


@pytest.mark.gpu
@each_op
def test_cuda_graph(spec: OpSpec) -> None:
    inputs = _inputs(spec, spec.cases[2], torch.float16, torch.device("cuda"))
    expected = results(spec.op(**inputs))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = results(spec.op(**inputs))
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@each_op
def test_public_op_is_the_registered_one(spec: OpSpec) -> None:
    assert getattr(ops, spec.name) is spec.op
    assert set(spec.tolerances) == set(DTYPES)


@each_op
def test_strided_views_and_odd_layouts(spec: OpSpec) -> None:
    """Slices, expansions, transposes and unaligned storage give what their copies give."""
    case = spec.cases[2]
    inputs = _inputs(spec, case, torch.float32, CPU)
    expected = results(spec.op(**inputs))
    tensors = [k for k, v in inputs.items() if isinstance(v, Tensor) and v.ndim == 4]

    def strided(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=3)[..., ::2]

    def transposed(x: Tensor) -> Tensor:
        return x.transpose(2, 3).contiguous().transpose(2, 3)

    def unaligned(x: Tensor) -> Tensor:
        storage = torch.empty(x.numel() + 1, dtype=x.dtype)
        return storage[1:].view(x.shape).copy_(x)

    for view in (strided, transposed, unaligned):
        changed = inputs | {name: view(inputs[name]) for name in tensors}
        kept = {name: changed[name].clone() for name in tensors}
        for found, wanted in zip(results(spec.op(**changed)), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        assert all(torch.equal(changed[name], kept[name]) for name in tensors)


@each_op
@each_device
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_nan_and_inf_spread_as_in_the_reference(
    spec: OpSpec, device: torch.device, poison: float, layout: torch.memory_format
) -> None:
    inputs = _inputs(spec, spec.cases[2], torch.float32, device)
    for name in [k for k, v in inputs.items() if isinstance(v, Tensor) and v.ndim == 4]:
        for channel in (0, -1):
            poisoned = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs.items()}
            poisoned[name][-1, channel, -1, -1] = poison
            assert error_to_float64(spec, spec.op, in_layout(poisoned, layout)) <= 1e-5


@each_norm
@each_device
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape",
    [(1, 8, 40, 41), (1, 16, 300, 304), (1, 5000, 2, 3), (1, 2, 700, 801), (1, 100, 24, 40)],
)
def test_norms_keep_their_precision_at_a_large_mean(
    spec: OpSpec, shape: tuple[int, ...], layout: torch.memory_format, device: torch.device
) -> None:
    """Deviation 1: a mean rounded to float32 alone would cost 5e-4, E[x^2] - mean^2 everything."""
    for dtype in DTYPES:
        inputs = in_layout(_inputs(spec, OpCase(shape, mean=1e4), dtype, device), layout)
        # measured worst on a CPU: float32 6.5e-7; the others round the result
        assert error_to_float64(spec, spec.op, inputs) <= max(4e-6, spec.tolerances[dtype])


@each_norm
@each_device
def test_norms_take_parameters_in_the_dtype_of_x(spec: OpSpec, device: torch.device) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        inputs = _inputs(spec, OpCase((2, 24, 9, 8)), dtype, device)
        for names in (("weight", "bias"), ("bias",)):
            lower = inputs | {name: inputs[name].to(dtype) for name in names}
            assert error_to_float64(spec, spec.op, lower) <= spec.tolerances[dtype]


@each_op
def test_large_fp16_values_do_not_overflow_in_statistics(spec: OpSpec) -> None:
    case = OpCase(spec.cases[3].shape, spec.cases[3].attributes, mean=1e4, std=10.0)
    for layout in LAYOUTS:
        inputs = in_layout(_inputs(spec, case, torch.float16, CPU), layout)
        assert error_to_float64(spec, spec.op, inputs) <= spec.tolerances[torch.float16]


@pytest.mark.slow
@each_op
@pytest.mark.parametrize("training", [False, True])
def test_torch_library_contract(spec: OpSpec, training: bool) -> None:
    """Schema, fake implementation, autograd registration and AOT dispatch, as torch checks them."""
    inputs = _inputs(spec, OpCase((2, 4, 5, 7)), torch.float32, CPU)
    arguments = [
        v.requires_grad_(training) if isinstance(v, Tensor) else v for v in inputs.values()
    ]
    torch.library.opcheck(getattr(torch.ops.restorert, spec.name).default, tuple(arguments))


@each_op
def test_gradient(spec: OpSpec) -> None:
    inputs = _inputs(spec, OpCase((2, 4, 3, 5)), torch.float64, CPU)
    names = [k for k, v in inputs.items() if isinstance(v, Tensor)]
    arguments = [inputs[name].double().requires_grad_() for name in names]
    rest = {k: v for k, v in inputs.items() if k not in names}
    assert torch.autograd.gradcheck(lambda *a: spec.op(*a, **rest), arguments)


@pytest.mark.slow
@each_op
@pytest.mark.parametrize("layout", LAYOUTS)
def test_under_torch_export_and_compile(spec: OpSpec, layout: torch.memory_format) -> None:
    torch.compiler.reset()  # every op compiles the same forward: their number has a limit
    inputs = in_layout(_inputs(spec, spec.cases[2], torch.float32, CPU), layout)
    names = [k for k, v in inputs.items() if isinstance(v, Tensor)]
    rest = {k: v for k, v in inputs.items() if k not in names}

    class Call(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Any:
            return spec.op(**dict(zip(names, tensors, strict=True)), **rest)

    arguments = tuple(inputs[name] for name in names)
    expected = results(spec.op(**inputs))
    exported = torch.export.export(Call(), arguments)
    assert any(
        node.target is getattr(torch.ops.restorert, spec.name).default
        for node in exported.graph.nodes
    )
    compiled = torch.compile(Call(), backend="aot_eager", fullgraph=True)
    for call in (exported.module(), compiled):
        for found, wanted in zip(results(call(*arguments)), expected, strict=True):
            assert torch.equal(found, wanted)
            assert found.stride() == wanted.stride()


@each_op
def test_onnx_function_is_the_formula(spec: OpSpec) -> None:
    """ONNX Runtime runs the function's body."""
    function = onnx.parser.parse_function(spec.onnx_function)
    assert (function.domain, function.name) == (ops.DOMAIN, spec.name)
    schema = getattr(torch.ops.restorert, spec.name).default._schema
    attributes = {a.name: a.default_value for a in schema.arguments if a.default_value is not None}
    tensors = [a for a in schema.arguments if a.name not in attributes]
    assert list(function.input) == [a.name for a in tensors if a.name in function.input]
    assert all(a.name in function.input or "Optional" in str(a.type) for a in tensors)
    assert {a.name: pytest.approx(a.f) for a in function.attribute_proto} == attributes
    for case in spec.cases:
        if 0 in case.shape:
            continue
        inputs = _inputs(spec, case, torch.float32, CPU)
        feeds = {k: v.numpy() for k, v in inputs.items() if isinstance(v, Tensor)}
        if list(feeds) != list(function.input):
            continue  # exported as plain operators: see test_cab.py
        given = {name: case.attributes.get(name, value) for name, value in attributes.items()}
        found = _run_onnx_function(function, feeds, given)
        for array, wanted in zip(found, results(spec.reference(**inputs)), strict=True):
            # measured worst: half_instance_norm 9.7e-6, at mean 1e4
            assert max_error(torch.from_numpy(array), wanted) <= 2e-5


def _run_onnx_function(
    function: onnx.FunctionProto, feeds: dict[str, Any], attributes: dict[str, Any]
) -> list[Any]:
    node = onnx.helper.make_node(
        function.name, function.input, function.output, domain=ops.DOMAIN, **attributes
    )
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "call",
        [onnx.helper.make_tensor_value_info(k, kind, v.shape) for k, v in feeds.items()],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in function.output],
    )
    opsets = [onnx.helper.make_opsetid(ops.DOMAIN, 1), *function.opset_import]
    model = onnx.helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


def test_missing_extension_says_how_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    from restorert.ops import native_call

    real = builtins.__import__

    def refuse(
        name: str, globals_: Any = None, locals_: Any = None, names: Any = (), level: int = 0
    ):
        if name == "restorert" and names and "_native" in names:
            raise ImportError("no such file")
        return real(name, globals_, locals_, names, level)

    native_call.native.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RunnerUnavailableError, match=r"cannot be loaded .*pip install \."):
        native_call.native()
    monkeypatch.undo()
    native_call.native.cache_clear()


X = torch.zeros(1, 4, 3, 3)
W = torch.zeros(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], W, W), r"argument 'x' has 3 dimensions; expected \[N, C, H, W\]"),
        ((X[:, :3], W, W), r"argument 'x' has 3 channels; expected an even number"),
        ((X, W[:1], W), r"argument 'weight' has shape \[1\]; expected \[2\]"),
        ((X, W, W[None]), r"argument 'bias' has shape \[1, 2\]; expected \[2\]"),
        ((X.int(), W, W), r"argument 'x' has dtype int32"),
        ((X, W.int(), W), r"argument 'weight' has dtype int32"),
        ((X, W.half(), W), r"argument 'weight' has dtype float16"),
        ((X, W, W, -1.0), r"'eps'"),
        ((X, W, W, float("nan")), r"'eps'"),
        ((X.to_sparse(), W, W), r"argument 'x' is sparse"),
        ((X, W.to("meta"), W), r"argument 'weight' is on meta"),
    ],
)
def test_half_instance_norm_misuse_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ops.half_instance_norm(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_half_instance_norm_devices_must_agree() -> None:
    with pytest.raises(InputError, match="weight"):
        ops.half_instance_norm(X.cuda(), W, W)


def test_half_instance_norm_reference_is_three_library_calls() -> None:
    """The reference against torch's own InstanceNorm2d, cat and LeakyReLU in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 17, 23, generator=generator, dtype=torch.float64)
    norm = torch.nn.InstanceNorm2d(3, affine=True, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight, generator=generator)
    torch.nn.init.normal_(norm.bias, generator=generator)
    expected = torch.nn.LeakyReLU(0.2)(torch.cat([norm(x[:, :3]), x[:, 3:]], dim=1))
    found = ops.half_instance_norm(x, norm.weight, norm.bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_half_instance_norm_closed_form() -> None:
    """A two-valued picture: mean m, deviation d, so the normalised values are +-1 exactly."""
    m, d = 1e4, 3.0
    x = torch.full((1, 4, 8, 8), m)
    x[:, :, ::2] += d
    x[:, :, 1::2] -= d
    out = ops.half_instance_norm(x, torch.ones(2), torch.zeros(2), eps=0.0, negative_slope=0.5)
    assert torch.equal(out[0, 0, 0], torch.ones(8))
    assert torch.equal(out[0, 1, 1], torch.full((8,), -0.5))
    assert torch.equal(out[:, 2:], x[:, 2:])


def test_half_instance_norm_of_a_constant_plane() -> None:
    x, weight, bias = torch.full((1, 4, 9, 9), -3.0), torch.ones(2), torch.tensor([0.5, -0.5])
    for slope in (0.0, 0.2, 1.0, -2.0):
        out = ops.half_instance_norm(x, weight, bias, negative_slope=slope)
        for channel, value in enumerate((0.5, -0.5 * slope, -3.0 * slope, -3.0 * slope)):
            assert torch.equal(out[0, channel], torch.full((9, 9), value))
    # Variance 0 and eps 0: 0 / 0, as in torch.
    assert bool(ops.half_instance_norm(x, weight, bias, eps=0.0)[:, :2].isnan().all())
