"""Build recipes: engines/<network>.toml."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorert.engine.profile import ShapeProfile
from restorert.errors import InputError, RecipeError, UnknownNetworkError
from restorert.export.onnx_export import ENGINE_PRECISIONS, check_engine_precision
from restorert.networks import network_spec
from restorert.quantize.quality import check_limit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# No GPU has as many MiB, and TensorRT counts bytes in 64 bits.
_RANGES = {"optimization_level": (0, 5), "workspace_mib": (1, 2**24)}


def check_builder_option(name: str, value: int | None, called: str) -> None:
    """Raise InputError, naming it as it was ``called``, where an option is out of its range."""
    low, high = _RANGES[name]
    if value is not None and not low <= value <= high:
        raise InputError(f"{called} is out of range; expected {low} to {high}")


@dataclass(frozen=True)
class BuilderOptions:
    """What the engine builders may spend and for which GPUs they build.

    Attributes:
        workspace_mib: most scratch memory a layer may use, MiB; None leaves TensorRT's default.
        optimization_level: 0 (fastest build) to 5 (fastest engine), TensorRT's meaning.
        compute_capabilities: GPUs that a TensorRT-RTX engine is for, such as ("8.9",); empty means
            the GPU of this machine or, on a machine without one, all that the library knows.
            TensorRT proper always builds for the GPU of this machine.
    """

    workspace_mib: int | None = None
    optimization_level: int = 3
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _RANGES:
            check_builder_option(name, getattr(self, name), name)

    def flags(self) -> list[str]:
        """The same options as flags of `restorert build`; none for what is left at its default.

        Without ``compute_capabilities``: a command in an error message must build for the GPU of
        the machine that shows it.
        """
        flags = []
        if self.workspace_mib is not None:
            flags.append(f"--workspace={self.workspace_mib}")
        if self.optimization_level != BuilderOptions.optimization_level:
            flags.append(f"--optimization-level={self.optimization_level}")
        return flags

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"compute_capabilities": list(self.compute_capabilities)}


@dataclass(frozen=True)
class Recipe:
    """How to build one network's engine.

    Attributes:
        network: its name.
        precision: fp32, fp16, bf16 or int8.
        profile: shapes to accept.
        options: for the builder.
        limits: precision -> most dB of PSNR that it may cost; what is missing has the limit of
            `restorert.quantize.DROP_LIMITS`.
    """

    network: str
    precision: str
    profile: ShapeProfile
    options: BuilderOptions
    limits: dict[str, float] = field(default_factory=dict)


_TYPES: dict[str, type | tuple[type, ...]] = {
    "workspace_mib": int,
    "optimization_level": int,
    "compute_capabilities": list,
}


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: unreadable, not TOML, an unknown or missing key, or a value out of range; the
            message names the file and the key.
    """
    name = os.fspath(path)
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {name}: {error.strerror or error}") from None
    except ValueError as error:  # not UTF-8, not TOML, an integer of thousands of digits
        raise RecipeError(f"{name} is not a TOML file: {error}") from None
    except RecursionError:
        raise RecipeError(f"{name} is not a TOML file: nested too deeply") from None
    allowed = {"network", "precision", "profile", "builder", "limits"}
    for key in raw:
        if key not in allowed:
            raise RecipeError(f"{name}: unknown key {key!r}; expected {', '.join(sorted(allowed))}")
    for key in ("network", "precision", "profile"):
        if key not in raw:
            raise RecipeError(f"{name}: key {key!r} is missing")
    for key in ("network", "precision"):
        if not isinstance(raw[key], str):
            raise RecipeError(f"{name}: {key} must be a string")
    builder = raw.get("builder", {})
    if not isinstance(builder, dict):
        raise RecipeError(f"{name}: builder must be a table")
    for key, value in builder.items():
        if key not in _TYPES:
            raise RecipeError(
                f"{name}: unknown key {'builder.' + key!r}; expected {', '.join(sorted(_TYPES))}"
            )
        if not isinstance(value, _TYPES[key]) or isinstance(value, bool):
            raise RecipeError(f"{name}: builder.{key} has the wrong type")
    if not all(isinstance(v, str) for v in builder.get("compute_capabilities", [])):
        raise RecipeError(f'{name}: builder.compute_capabilities is a list such as ["8.9"]')
    limits = raw.get("limits", {})
    if not isinstance(limits, dict):
        raise RecipeError(f"{name}: limits must be a table")
    for key in limits:
        if key not in ENGINE_PRECISIONS:
            raise RecipeError(
                f"{name}: unknown key {'limits.' + key!r}; expected {', '.join(ENGINE_PRECISIONS)}"
            )
    if "compute_capabilities" in builder:
        builder["compute_capabilities"] = tuple(builder["compute_capabilities"])
    try:
        network_spec(raw["network"])
        check_engine_precision(raw["precision"])
        return Recipe(
            raw["network"],
            raw["precision"],
            ShapeProfile.from_json(raw["profile"]),
            BuilderOptions(**builder),
            {key: check_limit(value, f"limits.{key}") for key, value in limits.items()},
        )
    except (InputError, UnknownNetworkError) as error:
        raise RecipeError(f"{name}: {error}") from None
