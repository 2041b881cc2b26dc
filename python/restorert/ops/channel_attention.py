"""Channel attention with its residual sum: the end of MPRNet's and MemoryNet's CAB."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops.arguments import check_pictures, check_shape
from restorert.ops.registration import fused_op
from restorert.ops.spec import Draw, OpCase, OpSpec


def _fake(
    r: Tensor,
    x: Tensor | None,
    w_down: Tensor,
    w_up: Tensor,
    b_down: Tensor | None = None,
    b_up: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    check_pictures("r", r)
    images, channels = r.shape[:2]
    if x is not None:
        check_shape("x", x, tuple(r.shape))
        if x.dtype != r.dtype:
            raise InputError(f"argument 'x' has dtype {x.dtype}; expected {r.dtype}, like 'r'")
    if w_down.ndim != 2 or w_down.shape[0] < 1 or w_down.shape[1] != channels:
        raise InputError(
            f"argument 'w_down' has shape {list(w_down.shape)}; "
            f"expected [R, {channels}] with R >= 1"
        )
    hidden = w_down.shape[0]
    check_shape("w_up", w_up, (channels, hidden))
    if b_down is None or b_up is None:
        if b_down is not b_up:
            missing = "b_down" if b_down is None else "b_up"
            raise InputError(f"argument '{missing}' is missing; expected both biases or neither")
    else:
        check_shape("b_down", b_down, (hidden,))
        check_shape("b_up", b_up, (channels,))
    if sums is not None:
        check_shape("sums", sums, (images, channels))
    return torch.empty_like(r)


@fused_op(_fake)
def channel_attention(
    r: Tensor,
    x: Tensor | None,
    w_down: Tensor,
    w_up: Tensor,
    b_down: Tensor | None = None,
    b_up: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """``r * s + x`` with ``s = sigmoid(w_up relu(w_down mean_hw(r) + b_down) + b_up)``.

    The channel attention block of MPRNet (Zamir et al., CVPR 2021, section 3.2; CALayer and the
    residual sum of CAB in the authors' code), which MemoryNet uses too: one pass over ``r`` for the
    mean of every channel, one over ``r`` and ``x`` for the result, all sums in float32 (float64
    for float64).

    Args:
        r: [N, C, H, W]; float32, float16, bfloat16 or float64; NCHW or channels_last (any other
            strides cost a copy).
        x: like ``r``, the block's input, or None for ``r * s``.
        w_down: [R, C], weight of the first 1x1 convolution; float32 or the dtype of ``r``.
        w_up: [C, R], weight of the second.
        b_down: [R] or None.
        b_up: [C]; None where ``b_down`` is.
        sums: float32 [N, C], ``r`` summed over H x W, from a kernel that has them already (the
            epilogue of the convolution that wrote ``r``); None to have them taken here.

    Returns:
        A tensor like ``r``, of the same memory format.

    Raises:
        InputError: other shapes or dtypes, or arguments on different devices.
    """
    wide_type = torch.promote_types(r.dtype, torch.float32)
    wide = r.to(wide_type)
    pixels = r.shape[2] * r.shape[3]
    mean = (wide.sum(dim=(2, 3)) if sums is None else sums.to(wide_type)) / pixels
    hidden = mean @ w_down.to(wide_type).T
    if b_down is not None:
        hidden = hidden + b_down.to(wide_type)
    scale = torch.relu(hidden) @ w_up.to(wide_type).T
    if b_up is not None:
        scale = scale + b_up.to(wide_type)
    out = wide * torch.sigmoid(scale)[:, :, None, None]
    return (out if x is None else out + x.to(wide_type)).to(r.dtype)


def eager(
    r: Tensor,
    x: Tensor | None,
    w_down: Tensor,
    w_up: Tensor,
    b_down: Tensor | None = None,
    b_up: Tensor | None = None,
    sums: Tensor | None = None,
) -> Tensor:
    """As the authors wrote it: pooling, two 1x1 convolutions, a product and a sum in place."""
    pooled = F.adaptive_avg_pool2d(r, 1)
    if sums is not None:
        pooled = (sums[:, :, None, None] / (r.shape[2] * r.shape[3])).to(r.dtype)

    def convolve(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(r.dtype)
        return F.conv2d(values, weight[:, :, None, None].to(r.dtype), bias)

    hidden = F.relu(convolve(pooled, w_down, b_down))
    out = r * torch.sigmoid(convolve(hidden, w_up, b_up))
    return out if x is None else out.add_(x)


def _draw_inputs(case: OpCase, draw: Draw) -> dict[str, Any]:
    images, channels = case.shape[:2]
    form = case.attributes
    hidden = max(1, channels // form.get("reduction", 4))
    kind = draw.dtype if form.get("weights") == "like r" else torch.float32

    # Channels of different means: the mean of plain noise is 0, and every scale 0.5.
    means = draw((images, channels, 1, 1), dtype=torch.float32)
    noise = draw(case.shape, dtype=torch.float32)
    r = ((noise + means) * case.std + case.mean).to(draw.dtype)
    inputs: dict[str, Any] = {
        "r": r,
        "x": draw(case.shape, case.mean, case.std) if form.get("residual", True) else None,
        "w_down": draw((hidden, channels), std=max(channels, 1) ** -0.5, dtype=kind),
        "w_up": draw((channels, hidden), std=hidden**-0.5, dtype=kind),
    }
    if form.get("bias", False) or form.get("sums", False):
        with_bias = form.get("bias", False)
        inputs["b_down"] = draw((hidden,), std=0.5, dtype=kind) if with_bias else None
        inputs["b_up"] = draw((channels,), std=0.5, dtype=kind) if with_bias else None
    if form.get("sums", False):
        inputs["sums"] = r.float().sum(dim=(2, 3))
    return inputs


def _bytes_moved(case: OpCase, element_size: int) -> int:
    # r for the means, then r and x for the result, and the result.
    passes = 4 - (not case.attributes.get("residual", True)) - case.attributes.get("sums", False)
    return int(passes * case.size * element_size)


SPEC = OpSpec(
    op=channel_attention,
    fake=_fake,
    eager=eager,
    draw_inputs=_draw_inputs,
    bytes_moved=_bytes_moved,
    cases=(
        OpCase((1, 1, 1, 1)),
        OpCase((2, 3, 1, 7)),
        OpCase((2, 7, 17, 23)),
        OpCase((1, 96, 45, 80)),
        OpCase((2, 80, 16, 16), {"weights": "like r"}),
        OpCase((1, 64, 31, 33), {"reduction": 16, "bias": True}),
        OpCase((3, 40, 9, 11), {"bias": True, "residual": False, "weights": "like r"}),
        OpCase((2, 20, 24, 16), {"residual": False}),
        OpCase((2, 36, 13, 8), {"sums": True}),
        OpCase((1, 80, 12, 10), {"sums": True, "bias": True, "residual": False}),
        OpCase((1, 10, 127, 131)),
        OpCase((1, 600, 16, 16), {"reduction": 1}),
        OpCase((1, 2, 300, 301)),
        OpCase((40, 16, 12, 20), {"reduction": 16}),
        OpCase((0, 4, 5, 5)),
        OpCase((1, 4, 0, 5)),
        OpCase((1, 8, 64, 61), mean=1e4, std=1e2),
    ),
    benchmark_cases=(
        OpCase((1, 96, 256, 256)),
        OpCase((1, 40, 720, 1280)),
        OpCase((1, 192, 180, 320)),
        OpCase((1, 40, 720, 1280), {"sums": True}),
    ),
    tolerances={
        # measured worst: on a CPU 2.7e-7; CUDA kernels in the emulator 1.1e-6, at C = R = 600
        torch.float32: 2e-6,
        torch.float16: 6e-4,  # measured worst on a CPU: 4.9e-4, half a unit in the last place
        torch.bfloat16: 4.5e-3,  # measured worst on a CPU: 3.9e-3, half a unit in the last place
    },
    # The form that the networks use; the others are exported as plain operators (a function has no
    # optional inputs for TensorRT's parser). In a TensorRT-RTX plan of convolutions and channel
    # attentions in fp16 this body costs 24 kernels and 4.28 GB for three blocks at 80x720x1280,
    # what the formula must move; the mean needs the cast to float32, and with the product and the
    # sum in float32 as well it is 5.75 GB. 1x1 convolutions in the place of Gemm cost the same.
    onnx_function="""
<domain: "restorert", opset_import: ["" : 18]>
channel_attention (r, x, w_down, w_up) => (y) {
    axes = Constant <value = int64[2] {2, 3}> ()
    wide = Cast <to = 1> (r)
    mean = ReduceMean <keepdims = 0> (wide, axes)
    down = Cast <to = 1> (w_down)
    up = Cast <to = 1> (w_up)
    hidden = Gemm <transB = 1> (mean, down)
    active = Relu (hidden)
    logits = Gemm <transB = 1> (active, up)
    s = Sigmoid (logits)
    pixels = Unsqueeze (s, axes)
    scale = CastLike (pixels, r)
    scaled = Mul (r, scale)
    y = Add (scaled, x)
}
""",
)
