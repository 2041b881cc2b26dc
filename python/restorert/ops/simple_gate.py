"""The simple gate of NAFNet (section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.ops.registration import check_dense, register_op
from restorert.ops.spec import OpCase, OpSpec, random_tensor

NAME = "simple_gate"


def simple_gate(x: Tensor) -> Tensor:
    """``x[:, :C] * x[:, C:]`` in one pass.

    NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), section 3.4: class
    SimpleGate of the authors' code. Where the mean of the result over H x W is wanted as well, as
    by the channel attention behind the gate, `simple_gate_mean` gives both for the price of one.

    Args:
        x: [N, 2C, H, W]; float32, float16, bfloat16 or float64; NCHW or channels_last (any other
            strides cost a copy).

    Returns:
        [N, C, H, W], of the dtype and memory format of ``x``.

    Raises:
        InputError: other shapes or dtypes.
    """
    check_dense(NAME, x=x)
    result: Tensor = _OP(x)
    return result


def reference(x: Tensor) -> Tensor:
    """The formula in the dtype of ``x`` (at least float32 inside)."""
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=1)
    return (first * second).to(x.dtype)


def eager(x: Tensor) -> Tensor:
    """As the authors wrote it."""
    first, second = x.chunk(2, dim=1)
    return first * second


def empty_product(op: str, x: Tensor) -> Tensor:
    """Room for the product of the halves of ``x``, once ``x`` is checked."""
    if x.ndim != 4:
        raise InputError(f"{op}: argument 'x' has {x.ndim} dimensions; expected [N, 2C, H, W]")
    if x.shape[1] % 2:
        raise InputError(f"{op}: argument 'x' has {x.shape[1]} channels; expected an even number")
    n, channels, h, w = x.shape
    pixels = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if pixels else torch.contiguous_format
    return torch.empty(
        (n, channels // 2, h, w), dtype=x.dtype, device=x.device, memory_format=layout
    )


def _fake(x: Tensor) -> Tensor:
    return empty_product(NAME, x)


_OP = register_op(f"{NAME}(Tensor x) -> Tensor", reference=reference, fake=_fake)


def make_inputs(
    case: OpCase, dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, Any]:
    """``x`` by the case, its second half standard normal, so that products stay within float16."""
    generator = torch.Generator().manual_seed(seed)
    n, channels, h, w = case.shape
    half = (n, channels // 2, h, w)
    first = random_tensor(half, dtype, device, generator, mean=case.mean, std=case.std)
    second = random_tensor(half, dtype, device, generator)
    return {"x": torch.cat([first, second], dim=1)}


def bytes_moved(case: OpCase, element_size: int) -> int:
    """Both halves read, one written."""
    return 3 * torch.Size(case.shape).numel() * element_size // 2


CASES = (
    OpCase((1, 2, 1, 1)),
    OpCase((2, 2, 1, 7)),
    OpCase((2, 6, 17, 23)),
    OpCase((1, 128, 45, 40)),
    OpCase((2, 80, 16, 16)),
    OpCase((1, 160, 31, 33)),
    OpCase((1, 192, 12, 20)),
    OpCase((3, 10, 24, 64)),
    OpCase((1, 2, 200, 300)),
    OpCase((1, 2048, 9, 8)),
    OpCase((2, 2000, 1, 1)),
    OpCase((0, 4, 5, 5)),
    OpCase((1, 4, 0, 5)),
    OpCase((1, 0, 4, 5)),
    OpCase((1, 16, 64, 61), mean=1e4, std=1e2),
)
"""[N, 2C, H, W]; the mean and deviation are those of the first half."""

BENCHMARK_CASES = (
    OpCase((1, 128, 256, 256)),
    OpCase((1, 128, 720, 1280)),
    OpCase((1, 2048, 45, 80)),
)

_ONNX_FUNCTION = """
<domain: "restorert", opset_import: ["" : 18]>
simple_gate (x) => (y) {
    first, second = Split <axis = 1, num_outputs = 2> (x)
    y = Mul (first, second)
}
"""

SPEC = OpSpec(
    name=NAME,
    op=simple_gate,
    reference=reference,
    fake=_fake,
    eager=eager,
    make_inputs=make_inputs,
    bytes_moved=bytes_moved,
    cases=CASES,
    benchmark_cases=BENCHMARK_CASES,
    tolerances={
        torch.float32: 1e-7,  # measured worst on a CPU: 5.9e-8, the rounding of the product
        torch.float16: 6e-4,  # measured worst on a CPU: 4.9e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 3.9e-3, half a unit in the last place
    },
    onnx_function=_ONNX_FUNCTION,
)
