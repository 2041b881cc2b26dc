"""Bytes that a forward pass must move, against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from restorert import ops
from restorert.networks.counts import count_bytes


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight, self.bias = (nn.Parameter(torch.ones(2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(ops.half_instance_norm(self.conv(x), self.weight, self.bias))


@pytest.mark.parametrize("element_size", [2, 4])
def test_bytes_of_a_convolution_and_a_norm(element_size: int) -> None:
    network = Normed()
    floor = count_bytes(network, (2, 3, 5, 7), element_size)
    # picture, weight, bias, result; the relu is fused, the norm goes once more over its picture
    assert floor.products == element_size * (210 + 108 + 4 + 280)
    assert floor.with_global_passes == floor.products + 2 * element_size * 280
    assert network.conv.weight.device.type == "cpu"


def test_bytes_of_a_matrix_product() -> None:
    floor = count_bytes(nn.Linear(5, 3, bias=False), (7, 5))
    assert floor.products == floor.with_global_passes == 2 * (35 + 15 + 21)
