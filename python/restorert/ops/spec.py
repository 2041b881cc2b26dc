"""One record describes an op for its tests, its benchmark and its exporter."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


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

    @property
    def size(self) -> int:
        """Elements of the main tensor."""
        return math.prod(self.shape)


class Draw:
    """Seeded random tensors, drawn on the CPU so that every device sees the same numbers."""

    def __init__(self, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        shape: tuple[int, ...],
        mean: float = 0.0,
        std: float = 1.0,
        *,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Normal values, of the case's dtype unless another is given."""
        values = torch.randn(shape, generator=self.generator) * std + mean
        return values.to(device=self.device, dtype=dtype or self.dtype)


def norm_inputs(case: OpCase, draw: Draw, channels: int) -> dict[str, Any]:
    """Arguments of a norm whose weight and bias have ``channels`` elements."""
    return {
        "x": draw(case.shape, case.mean, case.std),
        "weight": draw((channels,), 1.0, 0.2, dtype=torch.float32),
        "bias": draw((channels,), 0.0, 0.2, dtype=torch.float32),
        **case.attributes,
    }


@dataclass(frozen=True)
class OpSpec:
    """A fused op.

    Attributes:
        op: the public function, made by `fused_op`.
        fake: the same signature, shapes and dtypes only.
        eager: what a user would have written with torch's own modules; benchmarks time against it.
        draw_inputs: a case's arguments by name.
        bytes_moved: (case, element size) -> bytes the op must at least read and write.
        cases: correctness cases; the same list serves every dtype, layout and device.
        benchmark_cases: the sizes that `benchmarks/ops.py` times.
        tolerances: largest allowed error against the float64 reference by output dtype, relative
            to max(1, |reference|); the measured worst error stands beside each.
        onnx_function: the function of domain ``restorert`` in ONNX's text syntax: attributes of
            the op's schema, body of standard ONNX.
    """

    op: Callable[..., Any]
    fake: Callable[..., Any]
    eager: Callable[..., Any]
    draw_inputs: Callable[[OpCase, Draw], dict[str, Any]]
    bytes_moved: Callable[[OpCase, int], float]
    cases: tuple[OpCase, ...]
    benchmark_cases: tuple[OpCase, ...]
    tolerances: Mapping[torch.dtype, float]
    onnx_function: str

    @property
    def name(self) -> str:
        """The name of the torch op (``restorert::name``), the ONNX function and the plugin."""
        return self.op.__name__

    @property
    def reference(self) -> Callable[..., Any]:
        """The formula in plain torch, any float dtype: the oracle of every other version.

        The tests compare it with a closed form.
        """
        return inspect.unwrap(self.op)

    def make_inputs(
        self, case: OpCase, dtype: torch.dtype, device: torch.device, seed: int
    ) -> dict[str, Any]:
        """A case's arguments by name."""
        return self.draw_inputs(case, Draw(dtype, device, seed))
