"""The simple gate of NAFNet with the mean its channel attention pools (sections 3.3, 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops.arguments import check_pictures, empty_pictures
from restorert.ops.registration import fused_op
from restorert.ops.spec import Draw, OpCase, OpSpec


def _fake(x: Tensor) -> tuple[Tensor, Tensor]:
    check_pictures("x", x, "[N, 2C, H, W]")
    if x.shape[1] % 2:
        raise InputError(f"argument 'x' has {x.shape[1]} channels; expected an even number")
    product = empty_pictures(x, x.shape[1] // 2)
    mean_dtype = torch.promote_types(x.dtype, torch.float32)
    return product, x.new_empty(product.shape[:2], dtype=mean_dtype)


@fused_op(_fake)
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
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=1)
    product = first * second
    return product.to(x.dtype), product.mean(dim=(2, 3))


def eager(x: Tensor) -> tuple[Tensor, Tensor]:
    """As the authors wrote it: the gate, then AdaptiveAvgPool2d(1)."""
    first, second = x.chunk(2, dim=1)
    product = first * second
    return product, F.adaptive_avg_pool2d(product, 1).flatten(1)


def _draw_inputs(case: OpCase, draw: Draw) -> dict[str, Any]:
    """``x`` by the case, its second half standard normal, so that products stay within float16."""
    n, channels, h, w = case.shape
    half = (n, channels // 2, h, w)
    return {"x": torch.cat([draw(half, case.mean, case.std), draw(half)], dim=1)}


SPEC = OpSpec(
    op=simple_gate_mean,
    fake=_fake,
    eager=eager,
    draw_inputs=_draw_inputs,
    # Both halves read, one written.
    bytes_moved=lambda case, element_size: 3 * case.size * element_size // 2,
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
    # The body that every runner without the plugin executes. A TensorRT-RTX plan of it moves no
    # more than x and y; with the mean taken of fp32 products it moves 2.3 times as much.
    onnx_function="""
<domain: "restorert", opset_import: ["" : 18]>
simple_gate_mean (x) => (y, mean) {
    first, second = Split <axis = 1, num_outputs = 2> (x)
    y = Mul (first, second)
    wide = Cast <to = 1> (y)
    axes = Constant <value_ints = [2, 3]> ()
    mean = ReduceMean <keepdims = 0> (wide, axes)
}
""",
)
