"""The trained weights and INT8 calibrations that come with the package."""

from __future__ import annotations

from pathlib import Path

_SHIPPED = Path(__file__).parent / "data"


def shipped_weights() -> dict[str, Path]:
    """Network name -> checkpoint that comes with the package."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


def shipped_calibrations() -> dict[str, Path]:
    """Network name -> INT8 calibration that comes with the package.

    Beside it, with the suffix .safetensors, are weights that were fine-tuned for INT8, if any.
    """
    return {path.stem: path for path in sorted((_SHIPPED / "int8").glob("*.json"))}
