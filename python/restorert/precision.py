"""The precisions: names, fallbacks, and how much PSNR each may lose."""

from __future__ import annotations

import sys

from restorert.errors import Cure, InputError

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "bf16")
"""The precisions that a network's weights can be cast to."""

ENGINE_PRECISIONS = (*PRECISIONS, "int8")

SAFER = {"int8": "fp16", "fp16": "bf16", "bf16": "fp32"}
"""The precision in which a frame is run again after this one spoiled it."""

DROP_LIMITS = {"fp32": 0.0, "fp16": 0.01, "bf16": 0.05, "int8": 0.10}
"""PSNR in dB that a precision may lose, unless a recipe sets its own limit."""


def check_precision(precision: str) -> None:
    """Raise InputError unless a network can be cast to ``precision``."""
    if precision == "int8":
        raise InputError("int8 needs an ONNX file calibrated on pictures", Cure.CALIBRATE)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; expected {', '.join(PRECISIONS)}")


def check_engine_precision(precision: str) -> None:
    """Raise InputError unless an engine can be built in ``precision``."""
    if precision not in ENGINE_PRECISIONS:
        raise InputError(
            f"unknown precision {precision!r}; expected {', '.join(ENGINE_PRECISIONS)}"
        )


def check_limit(limit: object, name: str = "limit") -> float:
    """``limit``, the PSNR in dB that a precision may lose, as a float.

    Raises:
        InputError: not a finite number >= 0; the message calls it ``name``.
    """
    number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    # An integer may be larger than any float.
    if not number or not 0 <= limit <= sys.float_info.max:  # type: ignore[operator]
        raise InputError(f"{name} must be dB >= 0")
    return float(limit)  # type: ignore[arg-type]
