"""The gates of the convolutional LSTM beyond what every op is tested for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.ops import conv_lstm_gates
from restorert.ops.conv_lstm_gates import SPEC, eager
from restorert.testing import max_error
from restorert.testing.op_runner import LAYOUTS

INF = math.inf
reference = SPEC.reference


def _inputs(channels: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(2, 4 * channels, 17, 23, generator=generator) * 2
    return gates.to(dtype), torch.randn(2, channels, 17, 23, generator=generator)


def test_reference_is_torch_lstm_cell() -> None:
    """torch's LSTMCell with the gates as its input: i, f, g, o in place of i, j, f, o."""
    channels, forget_bias = 3, 1.25
    gates, cell = (t.double() for t in _inputs(channels))
    lstm = torch.nn.LSTMCell(4 * channels, channels, dtype=torch.float64)
    i, j, f, o = torch.eye(4 * channels, dtype=torch.float64).split(channels)
    with torch.no_grad():
        lstm.weight_ih.copy_(torch.cat([i, f, j, o]))
        for unused in (lstm.weight_hh, lstm.bias_ih, lstm.bias_hh):
            unused.zero_()
        lstm.bias_ih[channels : 2 * channels] = forget_bias

    def rows(x: Tensor) -> Tensor:
        return x.movedim(1, -1).reshape(-1, x.shape[1])

    expected = lstm(rows(gates), (torch.zeros_like(rows(cell)), rows(cell)))
    for found, wanted in zip(reference(gates, cell, forget_bias), expected, strict=True):
        torch.testing.assert_close(rows(found), wanted, rtol=0, atol=1e-14)


def test_eager_is_the_reference() -> None:
    gates, cell = _inputs()
    for found, wanted in zip(eager(gates, cell), reference(gates, cell), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtype_of_the_cell(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """The cell keeps its own dtype; hidden is computed from the cell before it is rounded."""
    gates, cell = _inputs(dtype=dtype)
    gates = gates.contiguous(memory_format=layout)
    for kind in (torch.float32, dtype):
        kept = cell.to(kind)
        hidden, next_cell = conv_lstm_gates(gates, kept)
        assert (hidden.dtype, next_cell.dtype) == (dtype, kind)
        expected = reference(gates.double(), kept.double())
        # Half a unit in the last place of values below 1 and below 2^3.
        assert max_error(hidden, expected[0]) <= torch.finfo(dtype).eps / 3
        limit = 1e-6 if kind == torch.float32 else torch.finfo(dtype).eps / 1.9
        assert max_error(next_cell, expected[1]) <= limit


def _one_gate(f: Tensor | float, i: Tensor | float, j: Tensor | float, o: Tensor | float) -> Tensor:
    columns = torch.broadcast_tensors(*(torch.as_tensor(g) for g in (i, j, f, o)))
    return torch.stack(columns).reshape(1, 4, 1, -1).float()


def test_sigmoid_and_tanh_are_precise_everywhere() -> None:
    """Relative error, so near zero as well. Measured worst: 1.6e-7."""
    sweep = torch.cat([torch.linspace(-86.0, 30.0, 40001), torch.logspace(-30, 1, 1000)])
    ones = torch.ones(1, 1, 1, len(sweep))
    _, found = conv_lstm_gates(_one_gate(sweep, -INF, 0.0, 0.0), ones, forget_bias=0.0)
    sigmoid = torch.sigmoid(sweep.double())
    assert ((found.flatten() - sigmoid) / sigmoid).abs().max() <= 4e-7
    for sign in (-1, 1):
        gates = _one_gate(-INF, INF, sign * sweep, INF)
        hidden, found = conv_lstm_gates(gates, torch.zeros_like(ones))
        tanh = torch.tanh(sign * sweep.double())
        assert ((found.flatten() - tanh) / tanh).nan_to_num().abs().max() <= 4e-7
        tanh = torch.tanh(found.flatten().double())
        assert ((hidden.flatten() - tanh) / tanh).nan_to_num().abs().max() <= 4e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saturated_gates(dtype: torch.dtype) -> None:
    """Infinite and huge gates are exactly open or shut; a shut gate lets no infinity through."""
    big = 6e4
    for high in (INF, big):
        gates = _one_gate(
            f=torch.tensor([high, -high, -high, high, -INF]),
            i=torch.tensor([-high, high, high, -high, high]),
            j=torch.tensor([high, high, -high, -high, high]),
            o=torch.tensor([high, high, -high, -high, high]),
        ).to(dtype)
        cell = torch.tensor([2.0, 3.0, 3.0, INF, INF]).reshape(1, 1, 1, 5)
        found = conv_lstm_gates(gates, cell)
        expected = reference(gates, cell)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)
        assert found[1].flatten()[:4].tolist() == [2.0, 1.0, -1.0, INF]
        assert found[1].flatten()[4].isnan()  # infinity * 0


def test_layouts_of_gates_and_cell_may_differ() -> None:
    gates, cell = _inputs()
    expected = conv_lstm_gates(gates, cell)
    for found in (
        conv_lstm_gates(gates.contiguous(memory_format=torch.channels_last), cell),
        conv_lstm_gates(gates, cell.contiguous(memory_format=torch.channels_last)),
    ):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


G = torch.zeros(2, 8, 3, 5)
C = torch.zeros(2, 2, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((G[0], C), r"argument 'gates' has 3 dimensions; expected \[N, 4C, H, W\]"),
        ((G[:, :6], C), r"argument 'gates' has 6 channels; expected a multiple of 4"),
        ((G, C[:1]), r"argument 'cell' has shape \[1, 2, 3, 5\]; expected \[2, 2, 3, 5\]"),
        ((G, G), r"argument 'cell' has shape \[2, 8, 3, 5\]; expected \[2, 2, 3, 5\]"),
        ((G, C[..., 0]), r"argument 'cell' has shape \[2, 2, 3\]; expected \[2, 2, 3, 5\]"),
        ((G.int(), C), r"argument 'gates' has dtype int32"),
        ((G, C.half()), r"argument 'cell' has dtype float16; expected float32"),
        ((G.half(), C.bfloat16()), r"'cell' has dtype bfloat16; expected float32 or float16"),
        ((G, C, INF), r"argument 'forget_bias' is inf; expected a finite float32"),
        ((G, C, math.nan), r"argument 'forget_bias' is nan"),
        ((G, C.to_sparse()), r"argument 'cell' is sparse; expected a dense tensor"),
        ((G, C.to("meta")), r"argument 'cell' is on meta; expected cpu"),
    ],
)
def test_misuse_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        conv_lstm_gates(*arguments)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("conv_lstm_gates: ")
