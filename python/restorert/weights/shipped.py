"""What comes with the package: trained weights and their INT8 calibrations."""

from __future__ import annotations

from pathlib import Path

_SHIPPED = Path(__file__).parent / "data"


def shipped_weights() -> dict[str, Path]:
    """The checkpoints that come with the package, by the name of their network."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.safetensors"))}


def shipped_calibrations() -> dict[str, Path]:
    """The INT8 calibrations that come with the package, by the name of their network."""
    found = sorted(_SHIPPED.glob("*.int8.json"))
    return {path.name.removesuffix(".int8.json"): path for path in found}
