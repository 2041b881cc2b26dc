"""Half instance norm of HINet, fused with the leaky ReLU that follows it (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops.arguments import check_pictures, check_shape
from restorert.ops.registration import fused_op
from restorert.ops.spec import OpCase, OpSpec, norm_inputs


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, negative_slope: float = 0.2
) -> Tensor:
    check_pictures("x", x)
    if x.shape[1] % 2:
        raise InputError(f"argument 'x' has {x.shape[1]} channels; expected an even number")
    check_shape("weight", weight, (x.shape[1] // 2,))
    check_shape("bias", bias, (x.shape[1] // 2,))
    return torch.empty_like(x)


@fused_op(_fake)
def half_instance_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, negative_slope: float = 0.2
) -> Tensor:
    """``lrelu(cat(IN(x[:, :C/2]) * weight + bias, x[:, C/2:]), negative_slope)`` in one pass.

    HINet (Chen et al., CVPRW 2021), section 3.2. Statistics per picture and channel over H x W,
    biased variance, computed in float32 (float64 for float64).

    Args:
        x: [N, C, H, W], C even; float32, float16, bfloat16 or float64; NCHW or channels_last (any
            other strides cost a copy).
        weight, bias: [C/2], float32 or the dtype of ``x``.
        eps: added to the variance, >= 0.
        negative_slope: of the leaky ReLU.

    Returns:
        A tensor like ``x``, of the same memory format.

    Raises:
        InputError: other shapes or dtypes, or arguments on different devices.
    """
    half = x.shape[1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    first = x[:, :half].to(wide)
    centred = first - first.mean(dim=(2, 3), keepdim=True)
    variance = centred.square().mean(dim=(2, 3), keepdim=True)
    scale = weight.to(wide)[:, None, None] * torch.rsqrt(variance + eps)
    normalised = centred * scale + bias.to(wide)[:, None, None]
    joined = torch.cat([normalised, x[:, half:].to(wide)], dim=1)
    return F.leaky_relu(joined, negative_slope).to(x.dtype)


def eager(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, negative_slope: float = 0.2
) -> Tensor:
    """As the authors wrote it: three library calls."""
    first, second = torch.chunk(x, 2, dim=1)
    normalised = F.instance_norm(first, weight=weight.to(x.dtype), bias=bias.to(x.dtype), eps=eps)
    return F.leaky_relu(torch.cat([normalised, second], dim=1), negative_slope)


SPEC = OpSpec(
    op=half_instance_norm,
    fake=_fake,
    eager=eager,
    draw_inputs=lambda case, draw: norm_inputs(case, draw, case.shape[1] // 2),
    # Half a tensor for the statistics, then one read and one write of all of it.
    bytes_moved=lambda case, element_size: int(2.5 * case.size * element_size),
    cases=(
        OpCase((1, 2, 1, 1)),
        OpCase((2, 2, 1, 7)),
        OpCase((2, 6, 17, 23)),
        OpCase((1, 64, 45, 80)),
        OpCase((2, 80, 16, 16), {"eps": 1e-3, "negative_slope": 0.01}),
        OpCase((1, 96, 31, 33), {"negative_slope": 0.0}),
        OpCase((1, 10, 127, 131)),
        OpCase((2, 34, 5, 9)),
        OpCase((1, 1024, 16, 16)),
        OpCase((1, 2, 700, 801)),
        OpCase((1, 36, 300, 301)),
        OpCase((0, 4, 5, 5)),
        OpCase((1, 4, 0, 5)),
        OpCase((1, 8, 64, 61), mean=1e4, std=1e2),
    ),
    benchmark_cases=(
        OpCase((1, 64, 256, 256)),
        OpCase((1, 64, 720, 1280)),
        OpCase((1, 512, 90, 160)),
    ),
    tolerances={
        torch.float32: 1e-6,  # measured worst on a CPU: 2.3e-7
        torch.float16: 6e-4,  # measured worst on a CPU: 4.9e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 3.9e-3, half a unit in the last place
    },
    # The body that every runner without the plugin executes; what it costs in a TensorRT plan
    # decides between equal formulas.
    onnx_function="""
<domain: "restorert", opset_import: ["" : 18]>
half_instance_norm <eps: float = 1e-5, negative_slope: float = 0.2> (x, weight, bias) => (y) {
    first, second = Split <axis = 1, num_outputs = 2> (x)
    normalised = InstanceNormalization <epsilon: float = @eps> (first, weight, bias)
    joined = Concat <axis = 1> (normalised, second)
    y = LeakyRelu <alpha: float = @negative_slope> (joined)
}
""",
)
