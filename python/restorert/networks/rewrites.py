"""Exact rewrites of modules that the deploy forms of several networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from restorert.networks.module import Rewrite

FUSES_EPILOGUES = frozenset({"tensorrt", "tensorrt_rtx"})
"""Runners whose compiler fuses a scale computed at run time into a convolution's kernel."""


def replace_modules(root: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> int:
    """Replace every descendant by ``make(descendant)`` where that is not None.

    Descendants of a replaced module are not visited. A module that is used in several places is
    replaced in all of them by one module.

    Returns:
        The number of modules replaced.
    """
    made: dict[int, nn.Module | None] = {}
    replaced: set[int] = set()

    def visit(parent: nn.Module) -> None:
        for name, child in list(parent.named_children()):
            if id(child) not in made:
                made[id(child)] = make(child)
            other = made[id(child)]
            if other is None:
                visit(child)
            else:
                setattr(parent, name, other)
                replaced.add(id(child))

    kept = list(root.modules())  # ids are unique only among modules that are alive
    visit(root)
    del kept
    return len(replaced)


def _to_leaky_relu(module: nn.Module) -> nn.Module | None:
    if not isinstance(module, nn.PReLU) or module.weight.numel() != 1:
        return None
    return nn.LeakyReLU(float(module.weight))


PRELU_TO_LEAKY_RELU = Rewrite(
    "prelu-to-leaky-relu",
    "PReLU(x; a) = LeakyReLU(x; a) for one a: compilers fuse a constant slope into the convolution",
    lambda network: replace_modules(network, _to_leaky_relu),
)


def convolution_of(weight: Tensor, bias: Tensor | None, like: nn.Conv2d) -> nn.Conv2d:
    """A convolution with this weight [O, I, h, w] and bias [O], otherwise like another of stride 1.

    It may have some of the outputs of ``like`` only, and is depthwise if that is.
    """
    groups = len(weight) if like.groups == like.out_channels else like.groups
    kernel, padding = cast(tuple[int, int], like.kernel_size), cast(tuple[int, int], like.padding)
    inputs, has_bias = weight.shape[1] * groups, bias is not None
    conv = nn.Conv2d(inputs, len(weight), kernel, padding=padding, groups=groups, bias=has_bias)
    conv.weight = nn.Parameter(weight.detach().to(like.weight))
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().to(like.weight))
    return conv


def mean_of_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """The mean over all pixels of a 3x3 convolution's result, without computing the convolution.

    The convolution is linear: its sum over the pixels is, tap by tap, the weight times the sum of
    the pixels that the tap reads. With zero padding, a tap off the centre misses a row or column at
    the picture's border.

    Args:
        x: [N, C, H, W], the convolution's input.
        weight: [O, C, 3, 3], of stride 1 and padding 1.

    Returns:
        [N, O], float32 at least.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = x.to(wide).sum(3)
    first, last = x[:, :, :, 0].to(wide), x[:, :, :, -1].to(wide)
    by_column = torch.stack([rows - last, rows, rows - first], dim=3)
    total = by_column.sum(2)
    by_tap = torch.stack([total - by_column[:, :, -1], total, total - by_column[:, :, 0]], dim=2)
    means = by_tap.flatten(1) / (x.shape[2] * x.shape[3])
    return means @ weight.to(wide).flatten(1).T


def product_of_1x1(*convolutions: Any) -> Tensor:
    """The [O, C, 1, 1] weight of a chain of 1x1 convolutions without biases, first to last."""
    weight = convolutions[0].weight.flatten(1).double()
    for convolution in convolutions[1:]:
        weight = convolution.weight.flatten(1).double() @ weight
    return weight[:, :, None, None].to(convolutions[0].weight.dtype)
