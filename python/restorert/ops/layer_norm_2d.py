"""Layer norm of NAFNet: over the channels of each pixel (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from restorert.ops.arguments import check_pictures, check_shape
from restorert.ops.registration import fused_op
from restorert.ops.spec import OpCase, OpSpec, norm_inputs


def _fake(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    check_pictures("x", x)
    check_shape("weight", weight, (x.shape[1],))
    check_shape("bias", bias, (x.shape[1],))
    return torch.empty_like(x)


@fused_op(_fake)
def layer_norm_2d(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over channels, in one pass.

    NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), section 3.2: class
    LayerNorm2d of the authors' code. Mean and biased variance are those of the C channels of one
    pixel, computed in float32 (float64 for float64): their sums overflow float16.

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16 or float64; NCHW or channels_last (any other
            strides cost a copy).
        weight, bias: [C], float32 or the dtype of ``x``.
        eps: added to the variance, >= 0.

    Returns:
        A tensor like ``x``, of the same memory format.

    Raises:
        InputError: other shapes or dtypes, or arguments on different devices.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = wide - wide.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    normalised = centred * torch.rsqrt(variance + eps)
    scale = weight.to(wide.dtype)[:, None, None]
    shift = bias.to(wide.dtype)[:, None, None]
    return (normalised * scale + shift).to(x.dtype)


def eager(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """As the authors compute it, in the dtype of ``x``."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    normalised = (x - mean) / (variance + eps).sqrt()
    return weight.to(x.dtype).view(1, -1, 1, 1) * normalised + bias.to(x.dtype).view(1, -1, 1, 1)


SPEC = OpSpec(
    op=layer_norm_2d,
    fake=_fake,
    eager=eager,
    draw_inputs=lambda case, draw: norm_inputs(case, draw, case.shape[1]),
    bytes_moved=lambda case, element_size: 2 * case.size * element_size,
    cases=(
        OpCase((1, 1, 1, 1)),
        OpCase((2, 1, 1, 7)),
        OpCase((2, 7, 17, 23)),
        OpCase((1, 64, 45, 80)),
        OpCase((2, 40, 16, 16), {"eps": 1e-3}),
        OpCase((1, 80, 31, 33), {"eps": 1e-5}),
        OpCase((1, 96, 12, 20)),
        OpCase((3, 150, 5, 8)),
        OpCase((1, 256, 12, 20)),
        OpCase((2, 512, 3, 24)),
        OpCase((1, 600, 5, 9)),
        OpCase((1, 1024, 9, 16)),
        OpCase((1, 2056, 4, 6)),
        OpCase((2, 2048, 1, 1)),
        OpCase((1, 3, 72, 128)),
        OpCase((0, 4, 5, 5)),
        OpCase((1, 4, 0, 5)),
        OpCase((1, 0, 4, 5)),
        OpCase((1, 48, 24, 25), mean=1e4, std=1e3),
        OpCase((1, 5, 40, 41), mean=-3.0, std=0.1),
    ),
    benchmark_cases=(
        OpCase((1, 64, 256, 256)),
        OpCase((1, 64, 720, 1280)),
        OpCase((1, 128, 360, 640)),
        OpCase((1, 1024, 45, 80)),
    ),
    tolerances={
        torch.float32: 2e-6,  # measured worst on a CPU: 5.1e-7; of the emulated kernels: 7.9e-7
        torch.float16: 6e-4,  # measured worst on a CPU: 4.9e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 3.9e-3, half a unit in the last place
    },
    # The body that every runner without the plugin executes. Of equal formulas a TensorRT-RTX plan
    # of this one moves the fewest bytes in fp16; LayerNormalization between transposes takes a
    # third more.
    onnx_function="""
<domain: "restorert", opset_import: ["" : 18]>
layer_norm_2d <eps: float = 1e-6> (x, weight, bias) => (y) {
    axis = Constant <value_ints = [1]> ()
    epsilon = Constant <value_float: float = @eps> ()
    wide = Cast <to = 1> (x)
    mean = ReduceMean <keepdims = 1> (wide, axis)
    centred = Sub (wide, mean)
    squares = Mul (centred, centred)
    variance = ReduceMean <keepdims = 1> (squares, axis)
    sum = Add (variance, epsilon)
    deviation = Sqrt (sum)
    normalised = Div (centred, deviation)
    column = Constant <value_ints = [1, -1, 1, 1]> ()
    wide_weight = Cast <to = 1> (weight)
    scale = Reshape (wide_weight, column)
    wide_bias = Cast <to = 1> (bias)
    shift = Reshape (wide_bias, column)
    scaled = Mul (normalised, scale)
    shifted = Add (scaled, shift)
    y = CastLike (shifted, x)
}
""",
)
