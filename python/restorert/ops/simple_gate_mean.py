"""The simple gate of NAFNet with the mean its channel attention pools (sections 3.3, 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops.registration import check_dense, register_op
from restorert.ops.spec import OpCase, OpSpec, random_tensor

NAME = "simple_gate_mean"


def simple_gate_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """``y = x[:, :C] * x[:, C:]`` and the mean of y over H x W, in one pass.

    NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), sections 3.3 and
    3.4: the gate, and the pooling at the head of the simplified channel attention behind it.

    Args:
        x: [N, 2C, H, W]; float32, float16, bfloat16 or float64; NCHW or channels_last (any other
            strides cost a copy).

    Returns:
        y [N, C, H, W], of the dtype and memory format of ``x``, and its mean [N, C] in float32
        (float64 for float64), taken of the products before they are rounded to the dtype of ``x``.
        The mean is NaN where H x W is 0.

    Raises:
        InputError: other shapes or dtypes.
    """
    check_dense(NAME, x=x)
    product, mean = _OP(x)
    return product, mean


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """The formula in the dtype of ``x`` (at least float32 inside)."""
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=1)
    product = first * second
    return product.to(x.dtype), product.mean(dim=(2, 3))


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    """As the authors wrote it: the gate, then AdaptiveAvgPool2d(1)."""
    first, second = x.chunk(2, dim=1)
    product = first * second
    return product, F.adaptive_avg_pool2d(product, 1).flatten(1)


def _fake(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 4:
        raise InputError(f"{NAME}: argument 'x' has {x.ndim} dimensions; expected [N, 2C, H, W]")
    if x.shape[1] % 2:
        raise InputError(f"{NAME}: argument 'x' has {x.shape[1]} channels; expected an even number")
    n, channels, h, w = x.shape
    pixels = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if pixels else torch.contiguous_format
    product = torch.empty(
        (n, channels // 2, h, w), dtype=x.dtype, device=x.device, memory_format=layout
    )
    mean_dtype = torch.promote_types(x.dtype, torch.float32)
    return product, x.new_empty((n, channels // 2), dtype=mean_dtype)


_OP = register_op(f"{NAME}(Tensor x) -> (Tensor, Tensor)", reference=reference, fake=_fake)


def _make_inputs(
    case: OpCase, dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, Any]:
    """``x`` by the case, its second half standard normal, so that products stay within float16."""
    generator = torch.Generator().manual_seed(seed)
    n, channels, h, w = case.shape
    half = (n, channels // 2, h, w)
    first = random_tensor(half, dtype, device, generator, mean=case.mean, std=case.std)
    second = random_tensor(half, dtype, device, generator)
    return {"x": torch.cat([first, second], dim=1)}


def _bytes_moved(case: OpCase, element_size: int) -> int:
    # Both halves read, one written.
    return 3 * torch.Size(case.shape).numel() * element_size // 2


# The body that every runner without the plugin executes. A TensorRT-RTX plan of it moves no more
# than x and y; with the mean taken of fp32 products it moves 2.3 times as much.
_ONNX_FUNCTION = """
<domain: "restorert", opset_import: ["" : 18]>
simple_gate_mean (x) => (y, mean) {
    first, second = Split <axis = 1, num_outputs = 2> (x)
    y = Mul (first, second)
    wide = Cast <to = 1> (y)
    axes = Constant <value_ints = [2, 3]> ()
    mean = ReduceMean <keepdims = 0> (wide, axes)
}
"""

SPEC = OpSpec(
    name=NAME,
    op=simple_gate_mean,
    reference=reference,
    fake=_fake,
    eager=eager,
    make_inputs=_make_inputs,
    bytes_moved=_bytes_moved,
    # [N, 2C, H, W]; the mean and deviation are those of the first half.
    cases=(
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
    ),
    benchmark_cases=(
        OpCase((1, 128, 256, 256)),
        OpCase((1, 128, 720, 1280)),
        OpCase((1, 2048, 45, 80)),
    ),
    tolerances={
        # measured worst on a CPU: 1.0e-6, where products of 1e4 nearly cancel; else 6e-8
        torch.float32: 2e-6,
        torch.float16: 6e-4,  # measured worst on a CPU: 4.9e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 3.9e-3, half a unit in the last place
    },
    onnx_function=_ONNX_FUNCTION,
)
