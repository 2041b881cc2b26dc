"""Runs an op's cases: tests and benchmarks share one list of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from restorert.ops import OpCase, OpSpec
from restorert.testing.errors import max_error

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def in_layout(inputs: dict[str, Any], layout: torch.memory_format) -> dict[str, Any]:
    """The arguments with every 4-dimensional tensor in ``layout``."""
    return {
        name: value.contiguous(memory_format=layout)
        if isinstance(value, Tensor) and value.ndim == 4
        else value
        for name, value in inputs.items()
    }


def results(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """An op's outputs as a tuple."""
    return (value,) if isinstance(value, Tensor) else tuple(value)


def error_to_float64(spec: OpSpec, op: Callable[..., Any], inputs: dict[str, Any]) -> float:
    """Largest error of ``op`` against the reference in float64, relative to max(1, |reference|)."""
    wide = {
        name: value.double().cpu() if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
    expected = results(spec.reference(**wide))
    found = results(op(**inputs))
    return max(max_error(f, e) for f, e in zip(found, expected, strict=True))


def every_case(spec: OpSpec) -> Iterator[tuple[OpCase, torch.dtype, torch.memory_format]]:
    """Cases x dtypes x layouts."""
    for case in spec.cases:
        for dtype in DTYPES:
            for layout in LAYOUTS:
                yield case, dtype, layout
