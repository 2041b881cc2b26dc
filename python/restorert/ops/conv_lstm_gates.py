"""Gates of a convolutional LSTM, fused: SRN-Deblur's recurrent cell (section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.ops.arguments import check_pictures, check_shape, empty_pictures
from restorert.ops.registration import fused_op
from restorert.ops.spec import Draw, OpCase, OpSpec


def _fake(gates: Tensor, cell: Tensor, forget_bias: float = 1.0) -> tuple[Tensor, Tensor]:
    check_pictures("gates", gates, "[N, 4C, H, W]")
    images, channels, height, width = gates.shape
    if channels % 4:
        raise InputError(f"argument 'gates' has {channels} channels; expected a multiple of 4")
    check_shape("cell", cell, (images, channels // 4, height, width))
    hidden = empty_pictures(gates, channels // 4)
    return hidden, torch.empty_like(hidden, dtype=cell.dtype)


@fused_op(_fake)
def conv_lstm_gates(gates: Tensor, cell: Tensor, forget_bias: float = 1.0) -> tuple[Tensor, Tensor]:
    """The next hidden and cell state of a convolutional LSTM, in one pass.

    With i, j, f, o the quarters of ``gates`` along the channels::

        next_cell = cell * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
        hidden = tanh(next_cell) * sigmoid(o)

    SRN-Deblur (Tao et al., "Scale-recurrent Network for Deep Image Deblurring", CVPR 2018), section
    3.2; the order of the gates is that of the authors' ``BasicConvLSTMCell``. Computed in float32
    (float64 for float64).

    Args:
        gates: [N, 4C, H, W], the convolution of the input and the last hidden state; float32,
            float16, bfloat16 or float64; NCHW or channels_last (any other strides cost a copy).
        cell: [N, C, H, W], float32 or the dtype of ``gates``. Keep it in float32: it is a sum over
            the steps.
        forget_bias: added to f.

    Returns:
        (hidden, next cell), both [N, C, H, W] in the memory format of ``gates``; hidden in the
        dtype of ``gates``, the cell in its own.

    Raises:
        InputError: other shapes or dtypes, or arguments on different devices.
    """
    wide = torch.promote_types(gates.dtype, torch.float32)
    i, j, f, o = gates.to(wide).chunk(4, dim=1)
    kept = cell.to(wide) * torch.sigmoid(f + forget_bias)
    next_cell = kept + torch.sigmoid(i) * torch.tanh(j)
    hidden = torch.tanh(next_cell) * torch.sigmoid(o)
    return hidden.to(gates.dtype), next_cell.to(cell.dtype)


def eager(gates: Tensor, cell: Tensor, forget_bias: float = 1.0) -> tuple[Tensor, Tensor]:
    """As the authors wrote it, one library call an operation."""
    i, j, f, o = torch.split(gates, gates.shape[1] // 4, dim=1)
    next_cell = cell * torch.sigmoid(f + forget_bias) + torch.sigmoid(i) * torch.tanh(j)
    hidden = torch.tanh(next_cell) * torch.sigmoid(o)
    return hidden.to(gates.dtype), next_cell.to(cell.dtype)


def _draw_inputs(case: OpCase, draw: Draw) -> dict[str, Any]:
    images, channels, height, width = case.shape
    cell = (images, channels // 4, height, width)
    # Twice the width, so that sigmoids and tanhs saturate here and there.
    return {
        "gates": draw(case.shape, case.mean, 2 * case.std),
        "cell": draw(cell, case.mean, case.std, dtype=torch.float32),
        **case.attributes,
    }


SPEC = OpSpec(
    op=conv_lstm_gates,
    fake=_fake,
    eager=eager,
    draw_inputs=_draw_inputs,
    # The gates and the fp32 cell are read, hidden and the cell written.
    bytes_moved=lambda case, size: case.size // 4 * (4 * size + 4 + size + 4),
    cases=(
        OpCase((1, 4, 1, 1)),
        OpCase((2, 4, 1, 7)),
        OpCase((2, 12, 17, 23)),
        OpCase((1, 512, 20, 36)),
        OpCase((2, 320, 16, 16), {"forget_bias": 0.0}),
        OpCase((3, 384, 5, 3), {"forget_bias": -2.5}),
        OpCase((1, 20, 127, 131)),
        OpCase((1, 4096, 3, 2)),
        OpCase((0, 8, 5, 5)),
        OpCase((1, 8, 0, 5)),
        OpCase((1, 8, 33, 30), std=20.0),
        OpCase((1, 8, 33, 30), std=1e-3),
    ),
    benchmark_cases=(
        OpCase((3, 512, 45, 80)),
        OpCase((1, 512, 90, 160)),
        OpCase((1, 64, 720, 1280)),
    ),
    tolerances={
        torch.float32: 1e-6,  # measured worst on a CPU: 3.3e-7
        torch.float16: 6e-4,  # measured worst on a CPU: 2.5e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 2.0e-3, half a unit in the last place
    },
    onnx_function="""
<domain: "restorert", opset_import: ["" : 18]>
conv_lstm_gates <forget_bias: float = 1.0> (gates, cell) => (hidden, next_cell) {
    i, j, f, o = Split <axis = 1, num_outputs = 4> (gates)
    wide_i = Cast <to = 1> (i)
    wide_j = Cast <to = 1> (j)
    wide_f = Cast <to = 1> (f)
    wide_o = Cast <to = 1> (o)
    wide_cell = Cast <to = 1> (cell)
    forget_bias = Constant <value_float: float = @forget_bias> ()
    biased_f = Add (wide_f, forget_bias)
    forget_gate = Sigmoid (biased_f)
    input_gate = Sigmoid (wide_i)
    output_gate = Sigmoid (wide_o)
    new_input = Tanh (wide_j)
    kept = Mul (wide_cell, forget_gate)
    added = Mul (input_gate, new_input)
    wide_next = Add (kept, added)
    activation = Tanh (wide_next)
    wide_hidden = Mul (activation, output_gate)
    hidden = CastLike (wide_hidden, gates)
    next_cell = CastLike (wide_next, cell)
}
""",
)
