"""channel_attention by its binding: memory, threads, misuse, nonsense."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from restorert.ops.channel_attention import reference
from restorert.testing import max_error

try:
    native: ModuleType = importlib.import_module("restorert._native")
except ImportError:
    pytest.skip("the native extension is not built", allow_module_level=True)

TENSORS = {
    "r": torch.randn(2, 4, 3, 5),
    "x": torch.randn(2, 4, 3, 5),
    "w_down": torch.randn(3, 4),
    "w_up": torch.randn(4, 3),
    "b_down": torch.randn(3),
    "b_up": torch.randn(4),
    "sums": torch.randn(2, 4),
    "out": torch.empty(2, 4, 3, 5),
}
AT = {name: tensor.data_ptr() for name, tensor in TENSORS.items()}


def view(tensor: Tensor | None, **changes: Any) -> Any:
    if tensor is None:
        return None
    fields = {
        "data_ptr": tensor.data_ptr(),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": "cpu",
    }
    return native.TensorView(**{**fields, **changes})


def call(changes: dict[str, Any]) -> None:
    """The op with changed fields of views, whole other tensors or None."""
    arguments = {}
    for name, tensor in TENSORS.items():
        change = changes.get(name, {})
        if isinstance(change, dict):
            arguments[name] = view(tensor, **change)
        else:
            arguments[name] = view(change)
    native.channel_attention(**arguments)


MISUSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"r": torch.zeros(4, 3, 5)}, ValueError,
     "argument 'r' has 3 dimensions; expected 4 (N, C, H, W)"),
    ({"r": {"dtype": "float64"}}, TypeError,
     "argument 'r' has dtype float64; expected float32, float16 or bfloat16"),
    ({"r": {"data_ptr": 0}}, ValueError,
     "argument 'r' is a null pointer; expected the address of its data"),
    ({"r": {"strides": (60, 15, 1, 3)}, "x": None}, ValueError,
     "argument 'r' has strides (60, 15, 1, 3) for shape (2, 4, 3, 5); expected a contiguous or "
     "channels_last tensor"),
    ({"r": {"device": "mps"}}, ValueError,
     "argument 'r' is on device mps; expected cpu or cuda"),
    ({"x": {"shape": (2, 4, 5, 3)}}, ValueError,
     "argument 'x' has shape (2, 4, 5, 3); expected (2, 4, 3, 5), the shape of 'r'"),
    ({"x": {"dtype": "float16"}}, TypeError,
     "argument 'x' has dtype float16; expected float32, the dtype of 'r'"),
    ({"x": {"strides": (60, 1, 20, 4)}}, ValueError,
     "argument 'x' has strides (60, 1, 20, 4); expected a contiguous tensor, as 'r' is"),
    ({"x": {"device": "cuda", "device_index": 0}}, ValueError,
     "argument 'x' is on device cuda:0; expected cpu, the device of 'r'"),
    ({"w_down": torch.zeros(4)}, ValueError,
     "argument 'w_down' has 1 dimensions; expected 2 (R, C)"),
    ({"w_down": torch.zeros(0, 4)}, ValueError,
     "argument 'w_down' has no rows; expected at least 1"),
    ({"w_down": torch.zeros(3, 5)}, ValueError,
     "argument 'w_down' has shape (3, 5); expected (3, 4), (R, C)"),
    ({"w_down": {"dtype": "float16"}}, TypeError,
     "argument 'w_down' has dtype float16; expected float32"),
    ({"w_down": {"strides": (1, 3)}}, ValueError,
     "argument 'w_down' has strides (1, 3); expected a contiguous matrix"),
    ({"w_down": {"device": "cuda", "device_index": 1}}, ValueError,
     "argument 'w_down' is on device cuda:1; expected cpu, the device of 'r'"),
    ({"w_down": {"data_ptr": AT["w_down"] + 2}}, ValueError,
     "argument 'w_down' is misaligned; expected an address that is a multiple of its element size"),
    ({"w_up": torch.zeros(3, 4)}, ValueError,
     "argument 'w_up' has shape (3, 4); expected (4, 3), (C, R)"),
    ({"w_up": {"dtype": "int8"}}, TypeError,
     "argument 'w_up' has dtype int8; expected float32, float16 or bfloat16"),
    ({"b_down": None}, ValueError,
     "argument 'b_down' is missing; expected both biases or neither"),
    ({"b_up": None}, ValueError,
     "argument 'b_up' is missing; expected both biases or neither"),
    ({"b_down": torch.zeros(4)}, ValueError,
     "argument 'b_down' has length 4; expected 3"),
    ({"b_up": {"strides": (2,)}}, ValueError,
     "argument 'b_up' has stride 2; expected a contiguous vector"),
    ({"sums": torch.zeros(4, 2)}, ValueError,
     "argument 'sums' has shape (4, 2); expected (2, 4), (N, C)"),
    ({"sums": {"dtype": "bfloat16"}}, TypeError,
     "argument 'sums' has dtype bfloat16; expected float32"),
    ({"out": torch.zeros(2, 4, 3)}, ValueError,
     "argument 'out' has 3 dimensions; expected 4 (N, C, H, W)"),
    ({"out": {"strides": (60, 1, 20, 4)}}, ValueError,
     "argument 'out' has strides (60, 1, 20, 4); expected a contiguous tensor, as 'r' is"),
    ({"out": {"data_ptr": AT["r"] + 4}}, ValueError,
     "argument 'out' overlaps 'r'; expected the same memory (in place) or separate memory"),
    ({"out": {"data_ptr": AT["x"] + 8}}, ValueError,
     "argument 'out' overlaps 'x'; expected the same memory (in place) or separate memory"),
    ({"w_up": {"data_ptr": AT["out"] + 16}}, ValueError,
     "argument 'out' overlaps 'w_up'; expected separate memory"),
    ({"sums": {"data_ptr": AT["out"]}}, ValueError,
     "argument 'out' overlaps 'sums'; expected separate memory"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "kind", "message"), MISUSE, ids=[m[2][:45] for m in MISUSE])
def test_misuse(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call(changes)
    assert str(caught.value) == f"channel_attention: {message}"


def test_required_arguments_are_not_none() -> None:
    for name in ("r", "w_down", "w_up", "out"):
        with pytest.raises(TypeError):
            call({name: None})
    views = [view(tensor) for tensor in TENSORS.values()]
    with pytest.raises(TypeError, match="argument 'workspace' has dtype float32; expected uint8"):
        native.channel_attention(*views, workspace=view(torch.zeros(4)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("target", ["r", "x"])
def test_in_place(layout: torch.memory_format, target: str) -> None:
    inputs = {name: tensor.clone() for name, tensor in TENSORS.items() if name not in ("sums",)}
    for name in ("r", "x"):
        inputs[name] = inputs[name].contiguous(memory_format=layout)
    del inputs["out"]
    expected = reference(**{name: tensor.double() for name, tensor in inputs.items()})
    views = {name: view(tensor) for name, tensor in inputs.items()}
    native.channel_attention(**views, sums=None, out=view(inputs[target]))
    assert max_error(inputs[target], expected) <= 1e-6


def test_threads_do_not_change_bits() -> None:
    before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    w_down, w_up = torch.randn(2, 5, generator=generator), torch.randn(5, 2, generator=generator)
    try:
        for layout in (torch.contiguous_format, torch.channels_last):
            r = torch.randn(1, 5, 700, 801, generator=generator).contiguous(memory_format=layout)
            outs = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                outs.append(torch.empty_like(r))
                views = [view(tensor) for tensor in (r, r, w_down, w_up)]
                native.channel_attention(*views, None, None, None, view(outs[-1]))
            assert torch.equal(outs[0], outs[1])
            assert torch.equal(outs[0], outs[2])
    finally:
        torch.set_num_threads(before)


def test_cuda_left_out() -> None:
    views = [view(tensor, device="cuda", device_index=0) for tensor in TENSORS.values()]
    if native.build_info()["cuda"]:
        with pytest.raises(ValueError, match="argument 'workspace' has 0 bytes; expected at least"):
            native.channel_attention(*views)
    else:
        with pytest.raises(native.NotCompiledError, match=r"no CUDA kernels; install .* rebuild"):
            native.channel_attention(*views)


def test_random_views_never_crash() -> None:
    """Views of nonsense around a real buffer: an error or a result, and no write outside `out`."""
    rng = np.random.default_rng(0)
    room = np.zeros(4096, np.float32)
    guard = 77.0
    results = 0
    for _ in range(4000):
        n, c, h, w = shape = rng.integers(-1, 5, 4).tolist()
        dense = [[c * h * w, h * w, w, 1], [c * h * w, 1, w * c, c]]
        strides = dense[rng.integers(2)] if rng.random() < 0.8 else rng.integers(-3, 60, 4).tolist()
        hidden = int(rng.integers(-1, 4))
        room[2048:] = guard

        def at(offset: int, sizes: list[int], steps: list[int]) -> Any:
            return native.TensorView(room.ctypes.data + 4 * offset, sizes, steps, "float32")

        down, up = at(1024, [hidden, c], [c, 1]), at(1024, [c, hidden], [hidden, 1])
        x = at(0, shape, strides) if rng.random() < 0.5 else None
        sums = at(1024, [n, c], [c, 1]) if rng.random() < 0.3 else None
        r, out = at(0, shape, strides), at(2048, shape, strides)
        try:
            native.channel_attention(r, x, down, up, None, None, sums, out)
        except ValueError as error:
            message, written = str(error), 0
        else:
            results += 1
            message, written = "channel_attention: argument '", n * c * h * w
        assert message.startswith("channel_attention: argument '")
        assert "\n" not in message
        assert np.all(room[2048 + written :] == guard)
    assert results > 100
