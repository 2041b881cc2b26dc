"""The trained weights and INT8 calibrations that come with the package."""

from __future__ import annotations

from pathlib import Path

_SHIPPED = Path(__file__).parent / "data"


def shipped_weights() -> dict[str, Path]:
    """Network name -> checkpoint that comes with the package."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


def shipped_calibrations() -> dict[str, Path]:
    """Network name -> INT8 calibration that comes with the package."""
    found = sorted(_SHIPPED.glob("*.int8.json"))
    return {path.name.removesuffix(".int8.json"): path for path in found}
