"""Parameters and multiply-accumulate operations of a network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulate operations of one forward pass.

    Attributes:
        exact: convolutions, transposed convolutions and matrix products, each product counted.
        paper: as the papers' tools count: a transposed convolution as if each output pixel read
            the whole kernel, which for stride s counts s * s too many.
    """

    exact: int
    paper: int


def count_parameters(network: nn.Module) -> int:
    """Elements of all parameters."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, shape: tuple[int, ...]) -> MacCount:
    """Count one forward pass of an [N, C, H, W] input, without computing it."""
    shadow = copy.deepcopy(network).to("meta")
    surplus = 0

    def transposed(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal surplus
        assert isinstance(module, nn.ConvTranspose2d)
        kernel = module.kernel_size[0] * module.kernel_size[1]
        per_position = module.in_channels * module.out_channels * kernel // module.groups
        positions = (output[0, 0].numel() - inputs[0][0, 0].numel()) * output.shape[0]
        surplus += per_position * positions

    handles = [
        module.register_forward_hook(transposed)
        for module in shadow.modules()
        if isinstance(module, nn.ConvTranspose2d)
    ]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(shape, device="meta"))
    for handle in handles:
        handle.remove()
    exact = counter.get_total_flops() // 2
    return MacCount(exact, exact + surplus)
