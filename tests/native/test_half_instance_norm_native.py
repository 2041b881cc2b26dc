"""The native op by itself, against the formula in float64."""

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

try:
    native: ModuleType = importlib.import_module("restorert._native")
except ImportError:
    try:
        native = importlib.import_module("_native")  # a build folder on the path
    except ImportError:
        pytest.skip("the native extension is not built", allow_module_level=True)

CPU = pytest.param("cpu")
GPU = pytest.param("cuda", marks=pytest.mark.gpu)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [
    (1, 2, 1, 1),
    (3, 6, 1, 1),
    (2, 64, 1, 1),
    (1, 2, 17, 23),
    (2, 6, 17, 23),
    (1, 64, 64, 48),
    (2, 80, 31, 20),
    (1, 96, 40, 41),
    (1, 512, 12, 20),
    (1, 24, 130, 200),
    (2, 16, 301, 300),
]
# Largest |error| / max(1, |y|). Measured on the CPU: float32 4.2e-7; float16 4.9e-4 and bfloat16
# 3.9e-3, which are the rounding of the result (2^-11 and 2^-8).
LIMITS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def view(tensor: torch.Tensor, **changes: Any) -> Any:
    fields = {
        "data_ptr": tensor.data_ptr(),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": tensor.device.type,
        "device_index": -1 if tensor.device.index is None else tensor.device.index,
    }
    return native.TensorView(**{**fields, **changes})


def run(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    out: torch.Tensor | None = None,
    eps: float = 1e-5,
    slope: float = 0.2,
) -> torch.Tensor:
    out = torch.full_like(x, 777.0) if out is None else out
    extra = {}
    keep = None
    if x.is_cuda:
        size = native.half_instance_norm_workspace_size(view(x))
        keep = torch.full((max(size, 16),), 255, dtype=torch.uint8, device=x.device)
        extra = {"workspace": view(keep), "stream": torch.cuda.current_stream().cuda_stream}
    native.half_instance_norm(view(x), view(weight), view(bias), view(out), eps, slope, **extra)
    if x.is_cuda:
        torch.cuda.synchronize()
    del keep
    return out


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5, slope: float = 0.2
) -> torch.Tensor:
    wide = x.detach().cpu().double().contiguous()
    half = x.shape[1] // 2
    first = wide[:, :half]
    mean = first.mean((2, 3), keepdim=True)
    variance = ((first - mean) ** 2).mean((2, 3), keepdim=True)
    scale = weight.cpu().double().view(1, -1, 1, 1)
    shift = bias.cpu().double().view(1, -1, 1, 1)
    normal = (first - mean) / torch.sqrt(variance + eps) * scale + shift
    return torch.nn.functional.leaky_relu(torch.cat([normal, wide[:, half:]], 1), slope)


def worst_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    if actual.numel() == 0:
        return 0.0
    error = (actual.cpu().double() - expected).abs() / expected.abs().clamp(min=1.0)
    return float(error.max())


def make(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: str,
    mean: float = 0.3,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = (torch.randn(shape, generator=generator) + mean).to(dtype)
    x = x.contiguous(memory_format=layout).to(device)
    weight = (torch.rand(shape[1] // 2, generator=generator) + 0.5).to(device)
    bias = torch.randn(shape[1] // 2, generator=generator).to(device)
    return x, weight, bias


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_formula(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    x, weight, bias = make(shape, dtype, layout, device)
    kept = x.clone(memory_format=torch.preserve_format)
    out = run(x, weight, bias)
    expected = reference(x, weight, bias)
    assert torch.equal(x, kept)
    assert worst_error(out, expected) <= LIMITS[dtype]
    # Parameters in the dtype of x.
    low = weight.to(dtype), bias.to(dtype)
    assert worst_error(run(x, *low), reference(x, *low)) <= LIMITS[dtype]
    # The same bits again, and in place.
    assert torch.equal(run(x, weight, bias), out)
    assert torch.equal(run(x, weight, bias, out=x), out)


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_picture(dtype: torch.dtype, layout: torch.memory_format, device: str) -> None:
    x, weight, bias = make((1, 6, 720, 1280), dtype, layout, device)
    assert worst_error(run(x, weight, bias), reference(x, weight, bias)) <= LIMITS[dtype]


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 8, 40, 41), (1, 16, 300, 304)], ids=str)
def test_large_mean(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    # E[x^2] - mean^2 would leave nothing of the variance, and the square of 1e4 overflows fp16.
    # The input is what rounding 1e4 + noise to `dtype` leaves of the noise. Measured: 1.4e-6.
    x, weight, bias = make(shape, dtype, layout, device, mean=1e4)
    limit = max(LIMITS[dtype], 4e-6)
    assert worst_error(run(x, weight, bias), reference(x, weight, bias)) <= limit


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_not_finite(
    value: float, dtype: torch.dtype, layout: torch.memory_format, device: str
) -> None:
    x, weight, bias = make((2, 8, 33, 35), dtype, layout, device)
    x[0, 1, 3, 4] = value  # poisons its whole plane, as in torch
    x[1, 6, 5, 6] = value  # the half that is not normalised: this element alone
    out = run(x, weight, bias).cpu().float()
    norm = torch.nn.functional.instance_norm(
        x.cpu()[:, :4].float(), None, None, weight.cpu(), bias.cpu()
    )
    expected = torch.nn.functional.leaky_relu(torch.cat([norm, x.cpu()[:, 4:].float()], 1), 0.2)
    assert bool(expected[0, 1].isnan().all())
    assert torch.equal(out.isnan(), expected.isnan())
    assert torch.equal(out.isinf(), expected.isinf())
    finite = expected.isfinite()
    assert worst_error(out[finite], expected[finite].double()) <= LIMITS[dtype]


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 8, 8), (2, 4, 0, 8), (2, 4, 8, 0)], ids=str)
def test_empty(shape: tuple[int, ...], layout: torch.memory_format, device: str) -> None:
    x = torch.empty(shape, device=device).contiguous(memory_format=layout)
    weight = torch.ones(shape[1] // 2, device=device)
    assert run(x, weight, weight).shape == shape


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_misaligned(dtype: torch.dtype, layout: torch.memory_format, device: str) -> None:
    # Element-aligned but not 16-byte aligned memory takes the scalar path.
    x, weight, bias = make((2, 16, 24, 32), dtype, layout, device)
    room = torch.empty(x.numel() + 1, dtype=dtype, device=device)
    shifted = torch.as_strided(room, x.shape, x.stride(), 1)
    shifted.copy_(x)
    assert worst_error(run(shifted, weight, bias), reference(x, weight, bias)) <= LIMITS[dtype]


def test_constant_plane_and_slopes() -> None:
    x = torch.full((1, 4, 9, 9), -3.0)
    weight, bias = torch.ones(2), torch.tensor([0.5, -0.5])
    for slope in (0.0, 0.2, 1.0, -2.0):
        out = run(x, weight, bias, slope=slope)
        assert torch.equal(out, reference(x, weight, bias, slope=slope).float())
    # Variance 0 and eps 0: 0 / 0, as in torch.
    assert bool(run(x, weight, bias, eps=0.0)[:, :2].isnan().all())


def test_threads_do_not_change_bits() -> None:
    before = torch.get_num_threads()
    try:
        for layout in LAYOUTS:
            x, weight, bias = make((1, 4, 700, 801), torch.float32, layout, "cpu")
            outs = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                if native.build_info()["openmp"]:
                    assert native.get_num_threads() == threads
                outs.append(run(x, weight, bias))
            assert torch.equal(outs[0], outs[1])
            assert torch.equal(outs[0], outs[2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.gpu
def test_graph_capture() -> None:
    x, weight, bias = make((1, 64, 256, 256), torch.float16, torch.channels_last, "cuda")
    expected = run(x, weight, bias)
    out = torch.empty_like(x)
    size = native.half_instance_norm_workspace_size(view(x))
    workspace = torch.empty(size, dtype=torch.uint8, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        native.half_instance_norm(
            view(x), view(weight), view(bias), view(out), 1e-5, 0.2,
            workspace=view(workspace), stream=torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)


@pytest.mark.gpu
def test_workspace_checks() -> None:
    x, weight, bias = make((1, 64, 256, 256), torch.float16, torch.channels_last, "cuda")
    out = torch.empty_like(x)
    size = native.half_instance_norm_workspace_size(view(x))
    room = torch.empty(size + 16, dtype=torch.uint8, device="cuda")
    four = [view(tensor) for tensor in (x, weight, bias, out)]
    for workspace, part in [(None, "has 0 bytes"), (room[: size - 1], "expected at least")]:
        with pytest.raises(ValueError, match=part):
            native.half_instance_norm(
                *four, 1e-5, 0.2, workspace=None if workspace is None else view(workspace)
            )
    with pytest.raises(ValueError, match="multiple of 16"):
        native.half_instance_norm(*four, 1e-5, 0.2, workspace=view(room[1:]))


def test_build_info() -> None:
    info = native.build_info()
    assert set(info) == {
        "version", "compiler", "cuda", "cuda_version", "cuda_architectures", "openmp",
        "tensorrt_headers", "ops",
    }  # fmt: skip
    assert "half_instance_norm" in info["ops"]
    assert info["cuda"] == (info["cuda_version"] is not None)


# ---- misuse: one line that names the op and the argument, never a crash ----

X = np.zeros((2, 4, 3, 5), np.float32)
W = np.ones(2, np.float32)
OUT = np.zeros_like(X)
HUGE = 2**62


def tensor(array: np.ndarray, **changes: Any) -> Any:
    fields = {
        "data_ptr": array.ctypes.data,
        "shape": array.shape,
        "strides": [stride // array.itemsize for stride in array.strides],
        "dtype": str(array.dtype),
    }
    return native.TensorView(**{**fields, **changes})


MISUSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": {"shape": (4, 3, 5), "strides": (15, 5, 1)}}, ValueError,
     "argument 'x' has 3 dimensions; expected 4 (N, C, H, W)"),
    ({"x": {"shape": (1, 2, 4, 3, 5), "strides": (0, 60, 15, 5, 1)}}, ValueError,
     "argument 'x' has 5 dimensions; expected 4 (N, C, H, W)"),
    ({"x": {"dtype": "float64"}}, TypeError,
     "argument 'x' has dtype float64; expected float32, float16 or bfloat16"),
    ({"x": {"dtype": "uint8"}}, TypeError,
     "argument 'x' has dtype uint8; expected float32, float16 or bfloat16"),
    ({"x": {"device": "mps"}}, ValueError,
     "argument 'x' is on device mps; expected cpu or cuda"),
    ({"x": {"shape": (2, 3, 3, 5)}}, ValueError,
     "argument 'x' has 3 channels; expected an even number, half of which are normalised"),
    ({"x": {"shape": (2, -4, 3, 5)}}, ValueError,
     "argument 'x' has shape (2, -4, 3, 5); expected sizes >= 0"),
    ({"x": {"shape": (HUGE, HUGE, HUGE, HUGE)}}, ValueError,
     f"argument 'x' has shape ({HUGE}, {HUGE}, {HUGE}, {HUGE}); expected a tensor whose size in "
     "bytes fits in 63 bits"),
    ({"x": {"data_ptr": 0}}, ValueError,
     "argument 'x' is a null pointer; expected the address of its data"),
    ({"x": {"data_ptr": X.ctypes.data + 1}}, ValueError,
     "argument 'x' is misaligned; expected an address that is a multiple of its element size"),
    ({"x": {"strides": (60, 15, 1, 3)}}, ValueError,
     "argument 'x' has strides (60, 15, 1, 3) for shape (2, 4, 3, 5); expected a contiguous or "
     "channels_last tensor"),
    ({"x": {"strides": (-60, 15, 5, 1)}}, ValueError,
     "argument 'x' has strides (-60, 15, 5, 1) for shape (2, 4, 3, 5); expected a contiguous or "
     "channels_last tensor"),
    ({"weight": {"shape": (3,)}}, ValueError,
     "argument 'weight' has length 3; expected 2"),
    ({"weight": {"shape": (2, 1), "strides": (1, 1)}}, ValueError,
     "argument 'weight' has 2 dimensions; expected 1 (a vector)"),
    ({"weight": {"dtype": "bfloat16"}}, TypeError,
     "argument 'weight' has dtype bfloat16; expected float32"),
    ({"x": {"dtype": "float16"}, "bias": {"dtype": "bfloat16"}}, TypeError,
     "argument 'bias' has dtype bfloat16; expected float32 or float16, the dtype of 'x'"),
    ({"weight": {"data_ptr": 0}}, ValueError,
     "argument 'weight' is a null pointer; expected the address of its data"),
    ({"weight": {"strides": (2,)}}, ValueError,
     "argument 'weight' has stride 2; expected a contiguous vector"),
    ({"weight": {"device": "cuda", "device_index": 1}}, ValueError,
     "argument 'weight' is on device cuda:1; expected cpu, the device of 'x'"),
    ({"bias": {"dtype": "int32"}}, TypeError,
     "argument 'bias' has dtype int32; expected float32, float16 or bfloat16"),
    ({"bias": {"shape": (-1,)}}, ValueError,
     "argument 'bias' has shape (-1,); expected sizes >= 0"),
    ({"out": {"shape": (2, 4, 5, 3)}}, ValueError,
     "argument 'out' has shape (2, 4, 5, 3); expected (2, 4, 3, 5), the shape of 'x'"),
    ({"out": {"dtype": "float16"}}, TypeError,
     "argument 'out' has dtype float16; expected float32, the dtype of 'x'"),
    ({"out": {"strides": (60, 1, 20, 4)}}, ValueError,
     "argument 'out' has strides (60, 1, 20, 4); expected a contiguous tensor, as 'x' is"),
    ({"out": {"data_ptr": 0}}, ValueError,
     "argument 'out' is a null pointer; expected the address of its data"),
    ({"out": {"data_ptr": X.ctypes.data + 4}}, ValueError,
     "argument 'out' overlaps 'x'; expected the same memory (in place) or separate memory"),
    ({"out": {"data_ptr": X.ctypes.data - 8}}, ValueError,
     "argument 'out' overlaps 'x'; expected the same memory (in place) or separate memory"),
    ({"weight": {"data_ptr": OUT.ctypes.data + 16}}, ValueError,
     "argument 'out' overlaps 'weight'; expected separate memory"),
    ({"eps": -1.0}, ValueError, "argument 'eps' is -1; expected a finite float32 >= 0"),
    ({"eps": float("nan")}, ValueError, "argument 'eps' is nan; expected a finite float32 >= 0"),
    ({"eps": 1e300}, ValueError, "argument 'eps' is 1e+300; expected a finite float32 >= 0"),
    ({"negative_slope": float("inf")}, ValueError,
     "argument 'negative_slope' is inf; expected a finite float32"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "message"), MISUSE, ids=[m[2][:40] for m in MISUSE])
def test_misuse(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    arrays = {"x": X, "weight": W, "bias": W, "out": OUT}
    views = [tensor(array, **changes.get(name, {})) for name, array in arrays.items()]
    with pytest.raises(kind) as caught:
        native.half_instance_norm(
            *views, changes.get("eps", 1e-5), changes.get("negative_slope", 0.2)
        )
    assert str(caught.value) == f"half_instance_norm: {message}"


def test_misuse_of_views() -> None:
    with pytest.raises(ValueError, match="'shape' has 6 dimensions; expected at most 5"):
        native.TensorView(0, [1] * 6, [1] * 6, "float32")
    with pytest.raises(ValueError, match="'strides' has length 1; expected 2"):
        native.TensorView(0, [1, 1], [1], "float32")
    for wrong in (-1, 2**80, "x", None):
        with pytest.raises(TypeError):
            native.TensorView(wrong, [1], [1], "float32")
    good = [tensor(X), tensor(W), tensor(W), tensor(OUT)]
    for position in range(4):
        with pytest.raises(TypeError):
            native.half_instance_norm(*good[:position], None, *good[position + 1 :], 1e-5, 0.2)
    with pytest.raises(TypeError, match="argument 'workspace' has dtype float32; expected uint8"):
        native.half_instance_norm(*good, 1e-5, 0.2, workspace=tensor(np.zeros(4, np.float32)))


def test_cuda_left_out() -> None:
    views = [tensor(array, device="cuda", device_index=0) for array in (X, W, W, OUT)]
    if native.build_info()["cuda"]:
        with pytest.raises(ValueError, match="argument 'workspace' has 0 bytes; expected at least"):
            native.half_instance_norm(*views, 1e-5, 0.2)
    else:
        with pytest.raises(native.NotCompiledError, match=r"no CUDA kernels; install .* rebuild"):
            native.half_instance_norm(*views, 1e-5, 0.2)
    assert issubclass(native.NotCompiledError, RuntimeError)


def test_random_views_never_crash() -> None:
    """Views of nonsense around a real buffer: an error or a result, and no write outside `out`."""
    rng = np.random.default_rng(0)
    room = np.zeros(4096, np.float32)
    guard = 77.0
    results = 0
    for _ in range(4000):
        shape = rng.integers(-1, 5, 4).tolist()
        n, c, h, w = shape
        dense = [[c * h * w, h * w, w, 1], [c * h * w, 1, w * c, c]]
        strides = dense[rng.integers(2)] if rng.random() < 0.8 else rng.integers(-3, 60, 4).tolist()
        room[2048:] = guard
        x = native.TensorView(room.ctypes.data, shape, strides, "float32")
        out = native.TensorView(room.ctypes.data + 4 * 2048, shape, strides, "float32")
        half = native.TensorView(room.ctypes.data + 4 * 1024, [max(c, 0) // 2], [1], "float32")
        try:
            native.half_instance_norm(x, half, half, out, 1e-5, 0.2)
        except ValueError as error:
            message, written = str(error), 0
        else:
            results += 1
            message, written = "half_instance_norm: argument '", n * c * h * w
        assert message.startswith("half_instance_norm: argument '")
        assert "\n" not in message
        assert np.all(room[2048 + written :] == guard)
    assert results > 100
