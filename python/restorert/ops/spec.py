"""One record describes an op for its tests, its benchmark and its exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class OpCase:
    """Shapes and attributes of one call. ``shape`` is [N, C, H, W] of the op's main tensor."""

    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    mean: float = 0.0
    """Added to the random inputs: a large mean is what breaks naive variances."""
    std: float = 1.0

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.shape))]
        parts += [f"{key}={value}" for key, value in self.attributes.items()]
        if (self.mean, self.std) != (0.0, 1.0):
            parts.append(f"mean={self.mean:g},std={self.std:g}")
        return " ".join(parts)


@dataclass(frozen=True)
class OpSpec:
    """A fused op.

    Attributes:
        name: of the torch op (``restorert::name``), the ONNX function and the TensorRT plugin.
        op: the public function.
        reference: the same signature in plain torch, any float dtype: the oracle of every other
            version, itself compared with a closed form in the tests.
        fake: the same signature, shapes and dtypes only.
        eager: what a user would have written with torch's own modules; benchmarks time against it.
        make_inputs: (case, dtype, device, seed) -> arguments by name.
        bytes_moved: (case, element size) -> bytes the op must at least read and write.
        cases: correctness cases; the same list serves every dtype, layout and device.
        benchmark_cases: the sizes that `benchmarks/ops.py` times.
        tolerances: largest allowed error against the float64 reference by output dtype, relative
            to max(1, |reference|); the measured worst error stands beside each.
        onnx_function: the function of domain ``restorert`` in ONNX's text syntax: attributes of
            the op's schema, body of standard ONNX.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    eager: Callable[..., Any]
    make_inputs: Callable[[OpCase, torch.dtype, torch.device, int], dict[str, Any]]
    bytes_moved: Callable[[OpCase, int], int]
    cases: tuple[OpCase, ...]
    benchmark_cases: tuple[OpCase, ...]
    tolerances: Mapping[torch.dtype, float]
    onnx_function: str


def random_tensor(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator,
    *,
    mean: float = 0.0,
    std: float = 1.0,
) -> Tensor:
    """Seeded normal values, drawn on the CPU so that every device sees the same numbers."""
    values = torch.randn(shape, generator=generator) * std + mean
    return values.to(device=device, dtype=dtype)
