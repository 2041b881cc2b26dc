"""Parameters and multiply-accumulate operations of a network."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from restorert.networks import create_network, list_networks, network_spec


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


@dataclass(frozen=True)
class VariantCount:
    """What a published variant costs.

    Attributes:
        parameters: their number of elements.
        macs: for one picture of 256x256, or of the next larger size that the network takes.
    """

    parameters: int
    macs: MacCount


def count_variant(name: str) -> VariantCount:
    """Count one of `list_networks()` without making its weights, equal configs only once.

    Raises:
        UnknownNetworkError: no such name.
    """
    config = network_spec(name).config
    return _count(next(n for n in list_networks() if network_spec(n).config == config))


@functools.cache
def _count(name: str) -> VariantCount:
    with torch.device("meta"):
        network = create_network(name)
    macs = count_macs(network, network.spec.shape_for(256, 256))
    return VariantCount(count_parameters(network), macs)


@dataclass(frozen=True)
class ByteFloor:
    """Bytes that one forward pass must move, if everything that can be fused is.

    Attributes:
        products: every convolution and matrix product reads its operands and writes its result
            once; all else is fused into them.
        with_global_passes: one more read and write of each tensor whose scale depends on all of its
            pixels (instance norm, channel attention, pooled gates).
    """

    products: int
    with_global_passes: int


_PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm")
_GLOBAL_OPS = ("half_instance_norm", "channel_attention", "simple_gate_mean")


class _ByteCounter(TorchDispatchMode):
    def __init__(self, element_size: int) -> None:
        super().__init__()
        self.element_size = element_size
        self.products = self.global_passes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        flat = (outputs,) if isinstance(outputs, Tensor) else outputs
        name = func._schema.name.split("::")[1]
        if name in _PRODUCTS:
            tensors = [t for t in (*args, *flat) if isinstance(t, Tensor)]
            self.products += self.element_size * sum(t.numel() for t in tensors)
        elif name in _GLOBAL_OPS:
            self.global_passes += 2 * self.element_size * flat[0].numel()
        return outputs


def count_bytes(network: nn.Module, shape: tuple[int, ...], element_size: int = 2) -> ByteFloor:
    """Count the floor for an [N, C, H, W] input, with elements of ``element_size`` bytes."""
    shadow = copy.deepcopy(network).to("meta")
    with torch.no_grad(), _ByteCounter(element_size) as counter:
        shadow(torch.empty(shape, device="meta"))
    return ByteFloor(counter.products, counter.products + counter.global_passes)
