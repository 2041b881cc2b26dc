"""Build recipes: engines/<network>.toml."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorert.engine.profile import ShapeProfile
from restorert.errors import InputError, RecipeError, UnknownNetworkError
from restorert.precision import ENGINE_PRECISIONS, check_engine_precision, check_limit
from restorert.record import read_record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


FLAGS = {
    "workspace_mib": "--workspace",
    "optimization_level": "--optimization-level",
    "compute_capabilities": "--compute-capability",
}
"""The command-line flag of each field of `BuilderOptions`."""

RANGES = {"optimization_level": (0, 5), "workspace_mib": (1, 2**24)}
"""Smallest and largest value; no GPU has 2**24 MiB, and TensorRT counts bytes in 64 bits."""


@dataclass(frozen=True)
class BuilderOptions:
    """The engine builders' budget, and the GPUs that they build for.

    Attributes:
        workspace_mib: maximum scratch memory of a layer in MiB; None is TensorRT's default.
        optimization_level: 0 (fastest build) to 5 (fastest engine), as in TensorRT.
        compute_capabilities: GPUs that a TensorRT-RTX engine is for, such as ("8.9",); if empty,
            the GPU of this machine or, on a machine without one, all that the library supports.
            TensorRT proper always builds for the GPU of this machine.
    """

    workspace_mib: int | None = None
    optimization_level: int = 3
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name} is out of range; expected {low} to {high}")

    def flags(self, names: Collection[str]) -> list[str]:
        """The named fields that differ from their defaults, as flags of `restorert build`.

        ``compute_capabilities`` is left out: a command in an error message must build for the GPU
        of the machine that prints it.
        """
        changed = [
            f.name
            for f in dataclasses.fields(self)
            if f.name in names and f.name in RANGES and getattr(self, f.name) != f.default
        ]
        return [f"{FLAGS[name]}={getattr(self, name)}" for name in changed]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"compute_capabilities": list(self.compute_capabilities)}


@dataclass(frozen=True)
class Recipe:
    """How to build one network's engine.

    Attributes:
        network: the network's name.
        precision: fp32, fp16, bf16 or int8.
        profile: shapes to accept.
        options: for the builder.
        limits: precision -> PSNR in dB that it may lose; a missing one has the limit of
            `restorert.precision.DROP_LIMITS`.
    """

    network: str
    precision: str
    profile: ShapeProfile
    options: BuilderOptions = field(default_factory=BuilderOptions)
    limits: dict[str, float] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: not readable, not TOML, an unknown or missing key, or a value out of range; the
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
    from restorert.networks import network_spec

    try:
        values = read_record(
            Recipe,
            raw,
            converters={
                "profile": ShapeProfile.from_json,
                "options": _builder_options,
                "limits": _limits,
            },
            keys={"options": "builder"},
        )
        network_spec(values["network"])
        check_engine_precision(values["precision"])
        return Recipe(**values)
    except (InputError, UnknownNetworkError) as error:
        raise RecipeError(f"{name}: {error}") from None


def _builder_options(raw: object) -> BuilderOptions:
    return BuilderOptions(**read_record(BuilderOptions, raw, prefix="builder."))


def _limits(raw: object) -> dict[str, float]:
    if not isinstance(raw, dict):
        raise InputError("limits must be a table")
    for key in raw:
        if key not in ENGINE_PRECISIONS:
            raise InputError(
                f"unknown key {'limits.' + key!r}; expected {', '.join(ENGINE_PRECISIONS)}"
            )
    return {key: check_limit(value, f"limits.{key}") for key, value in raw.items()}
