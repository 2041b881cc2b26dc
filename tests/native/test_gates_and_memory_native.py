"""conv_lstm_gates and memory_read by their bindings: memory, misuse, threads, nonsense."""

from __future__ import annotations

import importlib
from collections.abc import Callable
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

GATES = {
    "gates": torch.randn(2, 8, 3, 5),
    "cell": torch.randn(2, 2, 3, 5),
    "hidden": torch.empty(2, 2, 3, 5),
    "next_cell": torch.empty(2, 2, 3, 5),
}
MEMORY = {
    "x": torch.randn(2, 3, 4, 5),
    "part": torch.randn(6, 3),
    "instance": torch.randn(4, 3),
    "semantic": torch.randn(2, 3),
    "semantic_out": torch.empty(2, 3, 4, 5),
    "instance_out": torch.empty(2, 3, 4, 5),
    "part_out": torch.empty(2, 3, 4, 5),
}
OPS = {"conv_lstm_gates": GATES, "memory_read": MEMORY}


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
    """The op with changed fields of views, whole other tensors, or attributes."""
    arguments = {}
    for name, tensor in OPS[op].items():
        change = changes.get(name, {})
        is_tensor = isinstance(change, Tensor)
        arguments[name] = view(change) if is_tensor else view(tensor, **change)
    rest = {name: value for name, value in changes.items() if name not in OPS[op]}
    getattr(native, op)(**arguments, **rest)


AT = {name: tensor.data_ptr() for name, tensor in {**GATES, **MEMORY}.items()}

MISUSE: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("conv_lstm_gates", {"gates": {"dtype": "int32"}}, TypeError,
     "argument 'gates' has dtype int32; expected float32, float16 or bfloat16"),
    ("conv_lstm_gates", {"gates": {"shape": (2, 6, 3, 5)}}, ValueError,
     "argument 'gates' has 6 channels; expected a multiple of 4, for the gates i, j, f and o"),
    ("conv_lstm_gates", {"cell": {"shape": (2, 2, 5, 3)}}, ValueError,
     "argument 'cell' has shape (2, 2, 5, 3); expected (2, 2, 3, 5), a quarter of the channels of "
     "'gates'"),
    ("conv_lstm_gates", {"hidden": torch.zeros(2, 2, 3)}, ValueError,
     "argument 'hidden' has 3 dimensions; expected 4 (N, C, H, W)"),
    ("conv_lstm_gates", {"cell": {"dtype": "float16"}}, TypeError,
     "argument 'cell' has dtype float16; expected float32, the dtype of 'gates'"),
    ("conv_lstm_gates", {"hidden": {"dtype": "bfloat16"}}, TypeError,
     "argument 'hidden' has dtype bfloat16; expected float32, the dtype of 'gates'"),
    ("conv_lstm_gates", {"next_cell": {"dtype": "float16"}}, TypeError,
     "argument 'next_cell' has dtype float16; expected float32, the dtype of 'cell'"),
    ("conv_lstm_gates", {"gates": {"strides": (120, 15, 1, 3)}}, ValueError,
     "argument 'gates' has strides (120, 15, 1, 3) for shape (2, 8, 3, 5); expected a contiguous "
     "or channels_last tensor"),
    ("conv_lstm_gates", {"cell": {"strides": (30, 1, 10, 2)}}, ValueError,
     "argument 'cell' has strides (30, 1, 10, 2); expected a contiguous tensor, as 'gates' is"),
    ("conv_lstm_gates", {"cell": {"data_ptr": 0}}, ValueError,
     "argument 'cell' is a null pointer; expected the address of its data"),
    ("conv_lstm_gates", {"cell": {"device": "cuda", "device_index": 1}}, ValueError,
     "argument 'cell' is on device cuda:1; expected cpu, the device of 'gates'"),
    ("conv_lstm_gates", {"next_cell": {"data_ptr": AT["cell"] + 4}}, ValueError,
     "argument 'next_cell' overlaps 'cell'; expected the same memory (in place) or separate "
     "memory"),
    ("conv_lstm_gates", {"next_cell": {"data_ptr": AT["gates"]}}, ValueError,
     "argument 'next_cell' overlaps 'gates'; expected separate memory"),
    ("conv_lstm_gates", {"hidden": {"data_ptr": AT["gates"] + 64}}, ValueError,
     "argument 'hidden' overlaps 'gates'; expected separate memory"),
    ("conv_lstm_gates", {"hidden": {"data_ptr": AT["cell"]}}, ValueError,
     "argument 'hidden' overlaps 'cell'; expected separate memory"),
    ("conv_lstm_gates", {"hidden": {"data_ptr": AT["next_cell"] + 8}}, ValueError,
     "argument 'hidden' overlaps 'next_cell'; expected separate memory"),
    ("conv_lstm_gates", {"forget_bias": float("nan")}, ValueError,
     "argument 'forget_bias' is nan; expected a finite float32"),
    ("memory_read", {"x": torch.zeros(2, 3, 4)}, ValueError,
     "argument 'x' has 3 dimensions; expected 4 (N, C, H, W)"),
    ("memory_read", {"x": torch.zeros(1, 17, 2, 2)}, ValueError,
     "argument 'x' has 17 channels; expected 1 to 16"),
    ("memory_read", {"part": torch.zeros(6, 4)}, ValueError,
     "argument 'part' has 4 channels; expected 3, the channels of 'x'"),
    ("memory_read", {"instance": torch.zeros(513, 3)}, ValueError,
     "argument 'instance' has 513 prototypes; expected 1 to 512"),
    ("memory_read", {"semantic": torch.zeros(0, 3)}, ValueError,
     "argument 'semantic' has 0 prototypes; expected 1 to 512"),
    ("memory_read", {"part": {"dtype": "float16"}}, TypeError,
     "argument 'part' has dtype float16; expected float32"),
    ("memory_read", {"part": {"strides": (1, 6)}}, ValueError,
     "argument 'part' has strides (1, 6); expected a contiguous matrix"),
    ("memory_read", {"part": {"device": "cuda", "device_index": 0}}, ValueError,
     "argument 'part' is on device cuda:0; expected cpu, the device of 'x'"),
    ("memory_read", {"part_out": {"shape": (2, 3, 5, 4)}}, ValueError,
     "argument 'part_out' has shape (2, 3, 5, 4); expected (2, 3, 4, 5), the shape of 'x'"),
    ("memory_read", {"semantic_out": {"dtype": "float16"}}, TypeError,
     "argument 'semantic_out' has dtype float16; expected float32, the dtype of 'x'"),
    ("memory_read", {"instance_out": {"strides": (60, 1, 15, 3)}}, ValueError,
     "argument 'instance_out' has strides (60, 1, 15, 3); expected a contiguous tensor, as 'x' is"),
    ("memory_read", {"instance_out": {"data_ptr": AT["x"]}}, ValueError,
     "argument 'instance_out' overlaps 'x'; expected separate memory"),
    ("memory_read", {"semantic_out": {"data_ptr": AT["part_out"] + 8}}, ValueError,
     "argument 'semantic_out' overlaps 'part_out'; expected separate memory"),
    ("memory_read", {"part": {"data_ptr": AT["part_out"]}}, ValueError,
     "argument 'part_out' overlaps 'part'; expected separate memory"),
    ("memory_read", {"shrink": -0.5}, ValueError,
     "argument 'shrink' is -0.5; expected a finite float32 >= 0"),
    ("memory_read", {"shrink": float("inf")}, ValueError,
     "argument 'shrink' is inf; expected a finite float32 >= 0"),
]  # fmt: skip


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_next_cell_in_place(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for channels in (2, 40, 700):
        gates = torch.randn(2, 4 * channels, 9, 31).to(dtype, memory_format=layout)
        for kind in {torch.float32, dtype}:
            cell = torch.randn(2, channels, 9, 31).to(kind, memory_format=layout)
            hidden, again = (torch.empty_like(cell, dtype=dtype) for _ in range(2))
            apart = torch.empty_like(cell)
            native.conv_lstm_gates(view(gates), view(cell), view(hidden), view(apart))
            native.conv_lstm_gates(view(gates), view(cell), view(again), view(cell))
            assert torch.equal(cell, apart)
            assert torch.equal(again, hidden)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_do_not_change_bits(layout: torch.memory_format) -> None:
    x = torch.randn(1, 3, 301, 303).contiguous(memory_format=layout)
    gates = torch.randn(1, 24, 301, 303).contiguous(memory_format=layout)
    memories = [torch.randn(n, 3) for n in (100, 20, 10)]

    def run() -> list[Tensor]:
        outs = [torch.empty_like(x) for _ in range(3)]
        native.memory_read(view(x), *map(view, memories), *map(view, outs))
        cell = torch.ones_like(gates[:, :6], memory_format=layout)
        hidden, next_cell = torch.empty_like(cell), torch.empty_like(cell)
        native.conv_lstm_gates(view(gates), view(cell), view(hidden), view(next_cell))
        return [*outs, hidden, next_cell]

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


Views = tuple[list[Any], list[int]]  # arguments, and how many numbers each output has


def _random_gates(rng: np.random.Generator, at: Callable[[int], int]) -> Views:
    n, c, h, w = rng.integers(-1, 4, 4).tolist()
    layout = rng.integers(2)

    def tensor(channels: int, address: int) -> Any:
        dense = [[channels * h * w, h * w, w, 1], [channels * h * w, 1, w * channels, channels]]
        strides = dense[layout] if rng.random() < 0.8 else rng.integers(-3, 60, 4).tolist()
        return native.TensorView(address, [n, channels, h, w], strides, "float32")

    wide = 4 * c if rng.random() < 0.9 else int(rng.integers(0, 20))
    views = [tensor(wide, at(0)), tensor(c, at(1)), tensor(c, at(2)), tensor(c, at(3))]
    return views, [n * c * h * w] * 2


def _random_memory(rng: np.random.Generator, at: Callable[[int], int]) -> Views:
    n, c, h, w = rng.integers(-1, 4, 4).tolist()
    dense = [[c * h * w, h * w, w, 1], [c * h * w, 1, w * c, c]]
    strides = dense[rng.integers(2)] if rng.random() < 0.8 else rng.integers(-3, 60, 4).tolist()

    def picture(slot: int) -> Any:
        return native.TensorView(at(slot), [n, c, h, w], strides, "float32")

    def memory() -> Any:
        rows, columns = int(rng.integers(-1, 9)), c if rng.random() < 0.9 else 3
        return native.TensorView(at(1), [rows, columns], [columns, 1], "float32")

    outs = [picture(slot) for slot in (2, 3, 4)]
    return [picture(0), memory(), memory(), memory(), *outs], [n * c * h * w] * 3


@pytest.mark.parametrize(
    ("op", "make"), [("conv_lstm_gates", _random_gates), ("memory_read", _random_memory)]
)
def test_random_views_never_crash(op: str, make: Callable[..., Any]) -> None:
    """Views of nonsense in a real buffer: an error or a result, no write outside the outputs."""
    rng = np.random.default_rng(0)
    size, guard, results = 1024, 77.0, 0
    room = np.zeros((5, size), np.float32)
    for _ in range(3000):
        room[2:] = guard
        views, written = make(rng, lambda slot: room.ctypes.data + 4 * size * slot)
        try:
            getattr(native, op)(*views)
        except ValueError as error:
            message, written = str(error), [0] * len(written)
        else:
            message = f"{op}: argument '"
            results += 1
        assert message.startswith(f"{op}: argument '")
        assert "\n" not in message
        for row, count in zip(room[2:], written, strict=False):
            assert np.all(row[count:] == guard)
            assert np.all(row[:count] != guard)
    assert results > 100
