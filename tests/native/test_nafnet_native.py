"""layer_norm_2d and the simple gates by their bindings: memory, misuse, threads, nonsense."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

try:
    native: ModuleType = importlib.import_module("restorert._native")
except ImportError:
    pytest.skip("the native extension is not built", allow_module_level=True)

NORM = {
    "x": torch.randn(2, 4, 3, 5),
    "weight": torch.randn(4),
    "bias": torch.randn(4),
    "out": torch.empty(2, 4, 3, 5),
}
GATE = {"x": torch.randn(2, 4, 3, 5), "out": torch.empty(2, 2, 3, 5)}
MEAN = GATE | {"mean": torch.empty(2, 2)}
OPS = {"layer_norm_2d": NORM, "simple_gate": GATE, "simple_gate_mean": MEAN}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
HUGE = 2**62


def view(tensor: Tensor, **changes: Any) -> Any:
    fields = {
        "data_ptr": tensor.data_ptr(),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": "cpu",
    }
    return native.TensorView(**{**fields, **changes})


def call(op: str, changes: dict[str, Any]) -> None:
    """The op with changed fields of views, or attributes."""
    arguments = {k: view(v, **changes.get(k, {})) for k, v in OPS[op].items()}
    rest = {name: value for name, value in changes.items() if name not in OPS[op]}
    getattr(native, op)(**arguments, **rest)


AT = {op: {name: t.data_ptr() for name, t in tensors.items()} for op, tensors in OPS.items()}

NORM_MISUSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": {"shape": (4, 3, 5), "strides": (15, 5, 1)}}, ValueError,
     "argument 'x' has 3 dimensions; expected 4 (N, C, H, W)"),
    ({"x": {"dtype": "float64"}}, TypeError,
     "argument 'x' has dtype float64; expected float32, float16 or bfloat16"),
    ({"x": {"device": "mps"}}, ValueError, "argument 'x' is on device mps; expected cpu or cuda"),
    ({"x": {"shape": (2, -4, 3, 5)}}, ValueError,
     "argument 'x' has shape (2, -4, 3, 5); expected sizes >= 0"),
    ({"x": {"shape": (HUGE, HUGE, HUGE, HUGE)}}, ValueError,
     f"argument 'x' has shape ({HUGE}, {HUGE}, {HUGE}, {HUGE}); expected a tensor whose size in "
     "bytes fits in 63 bits"),
    ({"x": {"data_ptr": 0}}, ValueError,
     "argument 'x' is a null pointer; expected the address of its data"),
    ({"x": {"data_ptr": AT["layer_norm_2d"]["x"] + 1}}, ValueError,
     "argument 'x' is misaligned; expected an address that is a multiple of its element size"),
    ({"x": {"strides": (60, 15, 1, 3)}}, ValueError,
     "argument 'x' has strides (60, 15, 1, 3) for shape (2, 4, 3, 5); expected a contiguous or "
     "channels_last tensor"),
    ({"weight": {"shape": (2,)}}, ValueError, "argument 'weight' has length 2; expected 4"),
    ({"weight": {"dtype": "bfloat16"}}, TypeError,
     "argument 'weight' has dtype bfloat16; expected float32"),
    ({"bias": {"strides": (2,)}}, ValueError,
     "argument 'bias' has stride 2; expected a contiguous vector"),
    ({"bias": {"shape": (4, 1), "strides": (1, 1)}}, ValueError,
     "argument 'bias' has 2 dimensions; expected 1 (a vector)"),
    ({"bias": {"device": "cuda", "device_index": 1}}, ValueError,
     "argument 'bias' is on device cuda:1; expected cpu, the device of 'x'"),
    ({"out": {"shape": (2, 4, 5, 3)}}, ValueError,
     "argument 'out' has shape (2, 4, 5, 3); expected (2, 4, 3, 5), the shape of 'x'"),
    ({"out": {"dtype": "float16"}}, TypeError,
     "argument 'out' has dtype float16; expected float32, the dtype of 'x'"),
    ({"out": {"strides": (60, 1, 20, 4)}}, ValueError,
     "argument 'out' has strides (60, 1, 20, 4); expected a contiguous tensor, as 'x' is"),
    ({"out": {"data_ptr": AT["layer_norm_2d"]["x"] + 4}}, ValueError,
     "argument 'out' overlaps 'x'; expected the same memory (in place) or separate memory"),
    ({"weight": {"data_ptr": AT["layer_norm_2d"]["out"] + 16}}, ValueError,
     "argument 'out' overlaps 'weight'; expected separate memory"),
    ({"eps": -1e-6}, ValueError, "argument 'eps' is -1e-06; expected a finite float32 >= 0"),
    ({"eps": float("nan")}, ValueError, "argument 'eps' is nan; expected a finite float32 >= 0"),
]  # fmt: skip

# What both gates refuse.
GATE_MISUSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": {"shape": (4, 3, 5), "strides": (15, 5, 1)}}, ValueError,
     "argument 'x' has 3 dimensions; expected 4 (N, 2 * C, H, W)"),
    ({"x": {"shape": (2, 3, 3, 5)}}, ValueError,
     "argument 'x' has 3 channels; expected an even number, two halves to be multiplied"),
    ({"x": {"dtype": "int8"}}, TypeError,
     "argument 'x' has dtype int8; expected float32, float16 or bfloat16"),
    ({"x": {"data_ptr": 0}}, ValueError,
     "argument 'x' is a null pointer; expected the address of its data"),
    ({"x": {"strides": (60, 15, 1, 3)}}, ValueError,
     "argument 'x' has strides (60, 15, 1, 3) for shape (2, 4, 3, 5); expected a contiguous or "
     "channels_last tensor"),
    ({"out": {"shape": (2, 4, 3, 5)}}, ValueError,
     "argument 'out' has shape (2, 4, 3, 5); expected (2, 2, 3, 5), half of the channels of 'x'"),
    ({"out": {"dtype": "float16"}}, TypeError,
     "argument 'out' has dtype float16; expected float32, the dtype of 'x'"),
    ({"out": {"strides": (30, 1, 10, 2)}}, ValueError,
     "argument 'out' has strides (30, 1, 10, 2); expected a contiguous tensor, as 'x' is"),
    ({"out": {"device": "cuda", "device_index": 0}}, ValueError,
     "argument 'out' is on device cuda:0; expected cpu, the device of 'x'"),
    ({"out": {"data_ptr": AT["simple_gate"]["x"]}}, ValueError,
     "argument 'out' overlaps 'x'; expected separate memory"),
]  # fmt: skip

MEAN_MISUSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mean": {"shape": (2,), "strides": (1,)}}, ValueError,
     "argument 'mean' has 1 dimensions; expected 2 (N, C)"),
    ({"mean": {"shape": (2, 4)}}, ValueError,
     "argument 'mean' has shape (2, 4); expected (2, 2), images and half of the channels of 'x'"),
    ({"mean": {"dtype": "float16"}}, TypeError,
     "argument 'mean' has dtype float16; expected float32"),
    ({"mean": {"strides": (1, 2)}}, ValueError,
     "argument 'mean' has strides (1, 2); expected a contiguous matrix"),
    ({"mean": {"device": "cuda", "device_index": 1}}, ValueError,
     "argument 'mean' is on device cuda:1; expected cpu, the device of 'x'"),
    ({"mean": {"data_ptr": AT["simple_gate_mean"]["x"] + 8}}, ValueError,
     "argument 'mean' overlaps 'x'; expected separate memory"),
    ({"mean": {"data_ptr": AT["simple_gate_mean"]["out"] + 8}}, ValueError,
     "argument 'mean' overlaps 'out'; expected separate memory"),
]  # fmt: skip

MISUSE = [
    *(("layer_norm_2d", *each) for each in NORM_MISUSE),
    *(("simple_gate", *each) for each in GATE_MISUSE),
    *(("simple_gate_mean", *each) for each in GATE_MISUSE + MEAN_MISUSE),
]


@pytest.mark.parametrize(
    ("op", "changes", "kind", "message"), MISUSE, ids=[f"{m[0]}-{m[3][:40]}" for m in MISUSE]
)
def test_misuse(op: str, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call(op, changes)
    assert str(caught.value) == f"{op}: {message}"


@pytest.mark.parametrize("op", OPS)
def test_none_is_no_tensor(op: str) -> None:
    for name in OPS[op]:
        arguments = {k: None if k == name else view(v) for k, v in OPS[op].items()}
        with pytest.raises(TypeError):
            getattr(native, op)(**arguments)


def test_misuse_of_the_workspace() -> None:
    views = {name: view(tensor) for name, tensor in MEAN.items()}
    with pytest.raises(TypeError, match="argument 'workspace' has dtype float32; expected uint8"):
        native.simple_gate_mean(**views, workspace=view(torch.zeros(4)))
    on_gpu = {n: view(t, device="cuda", device_index=0) for n, t in MEAN.items()}
    if native.build_info()["cuda"]:
        with pytest.raises(ValueError, match="argument 'workspace' has 0 bytes; expected at least"):
            native.simple_gate_mean(**on_gpu)
    for op in OPS:
        assert getattr(native, f"{op}_workspace_size")(views["x"]) == 0
        with pytest.raises(ValueError, match=f"{op}: argument 'x' has 2 dimensions"):
            getattr(native, f"{op}_workspace_size")(view(torch.zeros(2, 2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_norm_in_place(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for shape in [(2, 3, 9, 31), (1, 64, 33, 40), (2, 700, 5, 3), (1, 16, 800, 801)]:
        x = torch.randn(shape).to(dtype, memory_format=layout)
        weight, bias = torch.randn(shape[1]), torch.randn(shape[1])
        out = torch.empty_like(x)
        kept = x.clone()
        native.layer_norm_2d(view(x), view(weight), view(bias), view(out))
        assert torch.equal(x, kept)
        native.layer_norm_2d(view(x), view(weight), view(bias), view(x))
        assert torch.equal(x, out)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_outputs_that_pass_the_caches(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """Outputs of 32 MiB and more are stored around the caches: the same results."""
    x = torch.randn(1, 40, 720, 1280 - 1).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(40), torch.randn(40)
    out = torch.empty_like(x)
    native.layer_norm_2d(view(x), view(weight), view(bias), view(out))
    rows = slice(400, 416)
    part = x[:, :, rows].double()
    centred = part - part.mean(1, keepdim=True)
    scale = (centred.square().mean(1, keepdim=True) + 1e-6).rsqrt()
    wanted = centred * scale * weight.double()[:, None, None] + bias.double()[:, None, None]
    error = (out[:, :, rows].double() - wanted).abs() / wanted.abs().clamp(min=1)
    assert error.max() <= (2e-6 if dtype == torch.float32 else 4e-3)  # measured: 7.3e-7, 3.9e-3

    first, second = x.float().chunk(2, dim=1)
    wanted = first * second
    product, again = (torch.empty_like(out[:, :20], memory_format=layout) for _ in range(2))
    mean = torch.empty(1, 20)
    native.simple_gate(view(x), view(product))
    native.simple_gate_mean(view(x), view(again), view(mean))
    assert torch.equal(product, wanted.to(dtype))
    assert torch.equal(again, product)
    torch.testing.assert_close(mean.double(), wanted.double().mean((2, 3)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_do_not_change_bits(layout: torch.memory_format) -> None:
    x = torch.randn(1, 24, 301, 303).contiguous(memory_format=layout)
    weight, bias = torch.randn(24), torch.randn(24)

    def run() -> list[Tensor]:
        out, mean = torch.empty_like(x), torch.empty(1, 12)
        product = torch.empty_like(x[:, :12], memory_format=layout)
        native.layer_norm_2d(view(x), view(weight), view(bias), view(out))
        native.simple_gate_mean(view(x), view(product), view(mean))
        return [out, product, mean]

    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run())
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("op", OPS)
def test_random_views_never_crash(op: str) -> None:
    """Views of nonsense in a real buffer: an error or a result, no write outside the outputs."""
    rng = np.random.default_rng(0)
    size, guard, results = 1024, 77.0, 0
    room = np.zeros((4, size), np.float32)
    for _ in range(3000):
        room[2:] = guard
        n, c, h, w = rng.integers(-1, 5, 4).tolist()
        layout = rng.integers(2)

        def tensor(
            channels: int, slot: int, n: int = n, h: int = h, w: int = w, layout: int = layout
        ) -> Any:
            dense = [[channels * h * w, h * w, w, 1], [channels * h * w, 1, w * channels, channels]]
            strides = dense[layout] if rng.random() < 0.8 else rng.integers(-3, 60, 4).tolist()
            address = room.ctypes.data + 4 * size * slot
            return native.TensorView(address, [n, channels, h, w], strides, "float32")

        pixels = max(n, 0) * max(h, 0) * max(w, 0)
        if op == "layer_norm_2d":
            vector = native.TensorView(room.ctypes.data + 4 * size, [max(c, 0)], [1], "float32")
            views, written = [tensor(c, 0), vector, vector, tensor(c, 2)], [c * pixels, 0]
        else:
            wide = 2 * c if rng.random() < 0.9 else int(rng.integers(0, 9))
            views, written = [tensor(wide, 0), tensor(c, 2)], [c * pixels, 0]
            if op == "simple_gate_mean":
                at = room.ctypes.data + 4 * size * 3
                views.append(native.TensorView(at, [n, c], [c, 1], "float32"))
                written[1] = n * c
        try:
            getattr(native, op)(*views)
        except ValueError as error:
            message, written = str(error), [0, 0]
        else:
            message = f"{op}: argument '"
            results += 1
        assert message.startswith(f"{op}: argument '")
        assert "\n" not in message
        for row, count in zip(room[2:], written, strict=True):
            assert np.all(row[count:] == guard)
            assert np.all(row[:count] != guard)
    assert results > 100
