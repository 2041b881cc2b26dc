"""The precisions: their names, what stands in for which, and what each may cost."""

from __future__ import annotations

import sys
from typing import Literal

from restorert.errors import Cure, InputError

Precision = Literal["fp32", "fp16", "bf16"]

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "bf16")
"""What a network's weights can be cast to."""

ENGINE_PRECISIONS = (*PRECISIONS, "int8")

SAFER = {"int8": "fp16", "fp16": "bf16", "bf16": "fp32"}
"""The precision in which a frame that another one spoils is run again."""

DROP_LIMITS = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.05, "int8": 0.10}
"""dB that a precision may cost, where a recipe says nothing else."""


def check_precision(precision: str) -> None:
    """Raise InputError unless ``precision`` is one that a network can be cast to."""
    if precision == "int8":
        raise InputError("int8 needs an ONNX file calibrated on pictures", Cure.CALIBRATE)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; expected {', '.join(PRECISIONS)}")


def check_engine_precision(precision: str) -> None:
    """Raise InputError unless ``precision`` is one that an engine can have."""
    if precision not in ENGINE_PRECISIONS:
        raise InputError(
            f"unknown precision {precision!r}; expected {', '.join(ENGINE_PRECISIONS)}"
        )


def check_limit(limit: object, name: str = "limit") -> float:
    """``limit``, the dB that a precision may cost, as a float.

    Raises:
        InputError: it is no finite number >= 0; the message calls it ``name``.
    """
    number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    # An integer may be larger than any float.
    if not number or not 0 <= limit <= sys.float_info.max:  # type: ignore[operator]
        raise InputError(f"{name} must be dB >= 0")
    return float(limit)  # type: ignore[arg-type]
