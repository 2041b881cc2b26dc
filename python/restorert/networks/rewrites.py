"""What the deploy forms of several networks share: exact rewrites of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from restorert.networks.module import Rewrite

FUSES_EPILOGUES = frozenset({"tensorrt", "tensorrt_rtx"})
"""Runners whose compiler puts a scale that is computed at run time into a convolution's kernel."""


def replace_modules(root: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> int:
    """Put ``make(child)`` in the place of every descendant for which it is not None.

    Descendants of what was replaced are not visited. A module that stands at several places is
    replaced at each of them by one and the same.

    Returns:
        How many modules were replaced.
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

    kept = list(root.modules())  # an id is a module's own only while the module lives
    visit(root)
    del kept
    return len(replaced)


def _to_leaky_relu(module: nn.Module) -> nn.Module | None:
    if not isinstance(module, nn.PReLU) or module.weight.numel() != 1:
        return None
    return nn.LeakyReLU(float(module.weight))


PRELU_TO_LEAKY_RELU = Rewrite(
    "prelu-to-leaky-relu",
    "PReLU(x; a) = LeakyReLU(x; a) for one a: a constant slope is fused into the convolution",
    lambda network: replace_modules(network, _to_leaky_relu),
)


def mean_of_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """The mean over all pixels of a 3x3 convolution's result, without the convolution.

    The convolution is linear: its sum over the pixels is, tap by tap, the weight times the sum of
    the pixels that the tap sees. With zero padding a tap off the centre misses a border row or
    column of the picture.

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
    product: Tensor = means @ weight.to(wide).flatten(1).T
    return product


def product_of_1x1(*convolutions: Any) -> Tensor:
    """The [O, C, 1, 1] weight of 1x1 convolutions without biases one after the other."""
    weight = convolutions[0].weight.flatten(1).double()
    for convolution in convolutions[1:]:
        weight = convolution.weight.flatten(1).double() @ weight
    found: Tensor = weight[:, :, None, None].to(convolutions[0].weight.dtype)
    return found
