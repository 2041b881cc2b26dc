"""MemoryNet's three reads of its memory, fused, and the prototypes that they read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops.arguments import check_pictures
from restorert.ops.registration import fused_op
from restorert.ops.spec import Draw, OpCase, OpSpec

MAX_CHANNELS = 16
MAX_PROTOTYPES = 512

# How far a result moves where rounding decides whether a weight is above the default threshold:
# the threshold over the share of the weights above it, times the distance of the prototype from
# the mean. Seen in 8 pictures of 720x1280: 2.1e-3 at most.
JUMP = 4e-3


def _fake(
    x: Tensor, part: Tensor, instance: Tensor, semantic: Tensor, shrink: float = 0.0025
) -> tuple[Tensor, Tensor, Tensor]:
    check_pictures("x", x)
    channels = x.shape[1]
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"argument 'x' has {channels} channels; expected 1 to {MAX_CHANNELS}")
    for argument, memory in (("part", part), ("instance", instance), ("semantic", semantic)):
        if memory.ndim != 2 or memory.shape[1] != channels:
            raise InputError(
                f"argument '{argument}' has shape {list(memory.shape)}; "
                f"expected [prototypes, {channels}]"
            )
        if not 1 <= memory.shape[0] <= MAX_PROTOTYPES:
            raise InputError(
                f"argument '{argument}' has {memory.shape[0]} prototypes; "
                f"expected 1 to {MAX_PROTOTYPES}"
            )
    return torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)


@fused_op(_fake)
def memory_read(
    x: Tensor, part: Tensor, instance: Tensor, semantic: Tensor, shrink: float = 0.0025
) -> tuple[Tensor, Tensor, Tensor]:
    """Read the part, the instance and the semantic memory, one after the other, in one pass.

    For every pixel, whose C channels are the first query::

        read(query, memory):  a = softmax(memory @ query)        # one weight a prototype
                              a = where(a > shrink, a, 0)        # hard shrink
                              a = a / max(sum(a), 1e-12)         # L1 norm
                              return memory.T @ a
        y_part = read(x, part)
        y_instance = read(y_part, instance)
        y_semantic = read(y_instance, semantic)

    MemoryNet ("Memory augment is All You Need for image restoration", arXiv 2309.01377), the
    authors' ``MemoryUnit``. Everything between ``x`` and the results is float32 (float64 for
    float64); no weight is stored. Where a weight lies on the threshold, rounding decides whether it
    counts: two computations may differ there by about ``shrink``.

    Args:
        x: [N, C, H, W], C from 1 to 16; float32, float16, bfloat16 or float64; NCHW or
            channels_last (any other strides cost a copy).
        part: [P, C], the learned prototypes, P from 1 to 512; float32 (float64 with float64).
        instance, semantic: [I, C] and [S, C], likewise; `derive_prototypes` computes them.
        shrink: weights up to it count as 0, >= 0.

    Returns:
        (y_semantic, y_instance, y_part), each like ``x``.

    Raises:
        InputError: other shapes or dtypes, or arguments on different devices.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    query = x.to(wide).movedim(1, -1)
    results: list[Tensor] = []
    for memory in (part, instance, semantic):
        weights = torch.softmax(query @ memory.to(wide).T, dim=-1)
        # The weights that count, 1 or 0; multiplying keeps a NaN.
        weights = weights * (weights > shrink)
        norm = weights.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        query = (weights / norm) @ memory.to(wide)
        results.insert(0, query.movedim(-1, 1).to(x.dtype))
    return results[0], results[1], results[2]


def derive_prototypes(
    part: Tensor,
    reweight_part_weight: Tensor,
    reweight_part_bias: Tensor,
    reweight_instance_weight: Tensor,
    reweight_instance_bias: Tensor,
    *,
    classes: int = 10,
    prototypes: int = 2,
    parts: int = 5,
) -> tuple[Tensor, Tensor]:
    """The instance and semantic prototypes that MemoryNet derives from its part prototypes.

    They depend on weights alone: compute them once. Each group of vectors v_1 ... v_n becomes the
    mean of sigmoid(W v + b) * v, where W mixes the vectors of a group, not their channels.

    The authors group with ``weight.view(classes * prototypes, C, parts)``, which does not put whole
    rows of ``part`` into a group's vectors: channel c of vector p is number c * parts + p of the
    group's parts * C consecutive numbers. Trained weights rely on it, so it is kept.

    Args:
        part: [classes * prototypes * parts, C].
        reweight_part_weight, reweight_part_bias: [parts, parts] (or with the trailing 1 of a
            one-dimensional convolution) and [parts].
        reweight_instance_weight, reweight_instance_bias: [prototypes, prototypes], likewise, and
            [prototypes].
        classes, prototypes, parts: sizes of the hierarchy.

    Returns:
        instance [classes * prototypes, C] and semantic [classes, C].

    Raises:
        InputError: sizes that do not fit together.
    """
    rows = classes * prototypes * parts
    if part.ndim != 2 or part.shape[0] != rows:
        raise InputError(
            f"derive_prototypes: argument 'part' has shape {list(part.shape)}; "
            f"expected [{rows}, C] for {classes} classes x {prototypes} prototypes x {parts} parts"
        )
    for argument, weight, bias, size in (
        ("reweight_part", reweight_part_weight, reweight_part_bias, parts),
        ("reweight_instance", reweight_instance_weight, reweight_instance_bias, prototypes),
    ):
        if tuple(weight.shape) not in ((size, size), (size, size, 1)):
            raise InputError(
                f"derive_prototypes: argument '{argument}_weight' has shape "
                f"{list(weight.shape)}; expected [{size}, {size}] or [{size}, {size}, 1]"
            )
        if tuple(bias.shape) != (size,):
            raise InputError(
                f"derive_prototypes: argument '{argument}_bias' has shape {list(bias.shape)}; "
                f"expected [{size}]"
            )

    def pool(groups: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Groups [G, n, C] to [G, C]."""
        mixed = weight.reshape(len(bias), len(bias)) @ groups + bias[:, None]
        return (torch.sigmoid(mixed) * groups).mean(dim=1)

    channels = part.shape[1]
    by_instance = part.reshape(classes * prototypes, channels, parts).transpose(1, 2)
    instance = pool(by_instance, reweight_part_weight, reweight_part_bias)
    by_class = instance.reshape(classes, prototypes, channels)
    semantic = pool(by_class, reweight_instance_weight, reweight_instance_bias)
    return instance, semantic


def eager(
    x: Tensor, part: Tensor, instance: Tensor, semantic: Tensor, shrink: float = 0.0025
) -> tuple[Tensor, Tensor, Tensor]:
    """As the authors wrote it, one library call an operation."""
    images, channels, height, width = x.shape

    def read(query: Tensor, memory: Tensor) -> Tensor:
        weights = F.softmax(F.linear(query, memory), dim=1)
        if shrink > 0:
            above = F.relu(weights - shrink)
            weights = above * weights / (torch.abs(weights - shrink) + 1e-12)
            weights = F.normalize(weights, p=1, dim=1)
        return F.linear(weights, memory.T)

    def picture(rows: Tensor) -> Tensor:
        return rows.view(images, height, width, channels).permute(0, 3, 1, 2).to(x.dtype)

    rows = x.permute(0, 2, 3, 1).reshape(-1, channels).to(part.dtype)
    y_part = read(rows, part)
    y_instance = read(y_part, instance)
    y_semantic = read(y_instance, semantic)
    return picture(y_semantic), picture(y_instance), picture(y_part)


def _draw_inputs(case: OpCase, draw: Draw) -> dict[str, Any]:
    """MemoryNet's sizes: 10 classes of 2 prototypes of 5 parts, drawn as the authors draw them."""
    channels = case.shape[1]

    def uniform(rows: int) -> Tensor:
        bound = channels**-0.5
        values = (2 * torch.rand((rows, channels), generator=draw.generator) - 1) * bound
        return values.to(draw.device)

    return {
        "x": draw(case.shape, case.mean, case.std),
        "part": uniform(100),
        "instance": uniform(20),
        "semantic": uniform(10),
        **case.attributes,
    }


# Convolutions of 1x1 keep the pictures in NCHW, where products of matrices would transpose them.
# The division by the norm comes after the weighted sum: C numbers a pixel in place of 100. A NaN
# is not <= shrink and stays. Float32 whatever the type of x.
_READ = """
    wide_{memory} = Cast <to = 1> ({memory})
    {memory}_rows = Unsqueeze (wide_{memory}, axes)
    {memory}_columns = Transpose <perm = [1, 0, 2, 3]> ({memory}_rows)
    {memory}_logits = Conv ({query}, {memory}_rows)
    {memory}_weights = Softmax <axis = 1> ({memory}_logits)
    {memory}_low = LessOrEqual ({memory}_weights, shrink)
    {memory}_kept = Where ({memory}_low, zero, {memory}_weights)
    {memory}_sum = ReduceSum ({memory}_kept, channels)
    {memory}_norm = Max ({memory}_sum, tiny)
    {memory}_total = Conv ({memory}_kept, {memory}_columns)
    {memory}_read = Div ({memory}_total, {memory}_norm)
"""

_ONNX_FUNCTION = (
    """
<domain: "restorert", opset_import: ["" : 18]>
memory_read <shrink: float = 0.0025> (x, part, instance, semantic)
    => (y_semantic, y_instance, y_part) {
    axes = Constant <value_ints = [2, 3]> ()
    channels = Constant <value_ints = [1]> ()
    shrink = Constant <value_float: float = @shrink> ()
    zero = Constant <value_float = 0.0> ()
    tiny = Constant <value_float = 1e-12> ()
    query = Cast <to = 1> (x)
"""
    + _READ.format(memory="part", query="query")
    + _READ.format(memory="instance", query="part_read")
    + _READ.format(memory="semantic", query="instance_read")
    + """
    y_part = CastLike (part_read, x)
    y_instance = CastLike (instance_read, x)
    y_semantic = CastLike (semantic_read, x)
}
"""
)

SPEC = OpSpec(
    op=memory_read,
    fake=_fake,
    eager=eager,
    draw_inputs=_draw_inputs,
    # x is read, three results are written; the prototypes are nothing beside them.
    bytes_moved=lambda case, element_size: 4 * case.size * element_size,
    cases=(
        OpCase((1, 3, 1, 1)),
        OpCase((2, 3, 1, 7)),
        OpCase((2, 3, 17, 23)),
        OpCase((1, 3, 45, 40)),
        OpCase((2, 1, 16, 16), {"shrink": 0.02}),
        OpCase((1, 4, 31, 33), {"shrink": 0.0}),
        OpCase((1, 5, 13, 11)),
        OpCase((1, 16, 9, 31)),
        OpCase((0, 3, 5, 5)),
        OpCase((1, 3, 0, 5)),
        OpCase((1, 3, 16, 15), std=10.0),
        OpCase((1, 3, 16, 15), {"shrink": 2.0}),
    ),
    benchmark_cases=(
        OpCase((1, 3, 256, 256)),
        OpCase((1, 3, 720, 1280)),
    ),
    tolerances={
        # Measured worst of these cases on a CPU: 2.8e-7, 2.5e-4 and 2.0e-3, the last two half a
        # unit in the last place; in none of them does a weight lie on the threshold. On another
        # device one may, hence JUMP. tests/ops/test_memory_read.py is strict with all other pixels.
        torch.float32: JUMP,
        torch.float16: JUMP + 6e-4,
        torch.bfloat16: JUMP + 4.5e-3,
    },
    onnx_function=_ONNX_FUNCTION,
)
