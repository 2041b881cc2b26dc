"""What a builder is asked for, and what it tells of the engine it made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions

if TYPE_CHECKING:
    from restorert.export.onnx_file import OnnxFile


@dataclass(frozen=True)
class BuildRequest:
    """All that an engine follows from, but for the library and the machine that build it.

    Attributes:
        onnx: the file to build from; its types are the engine's.
        precision: as asked: fp32, fp16, bf16, int8.
        profile: shapes to accept.
        options: for the builder.
        weights_sha256: of the network; empty where an ONNX file brought the weights.
        weights_from: see `Sidecar`.
        named_by: flags of `restorert build` that name the network; empty where none can, because
            its weights are in no file.
    """

    onnx: OnnxFile
    precision: str
    profile: ShapeProfile
    options: BuilderOptions
    weights_sha256: str = ""
    weights_from: str = ""
    named_by: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What a cache key is made of."""
        return {
            "onnx": self.onnx.sha256,
            "weights": self.weights_sha256,
            "precision": self.precision,
            "profile": self.profile.to_json(),
            "options": self.options.to_json(),
        }

    def command(
        self, runner: str, options: Collection[str], output: str | os.PathLike[str] | None
    ) -> str:
        """The command line that builds the same again; empty where none can.

        Args:
            runner: that built it.
            options: fields of `BuilderOptions` that the runner heeds.
            output: the engine file; None where it lies in the cache.
        """
        if not self.named_by:
            return ""
        parts = ["restorert", "build", *self.named_by, f"--precision={self.precision}"]
        parts += [f"--runner={runner}", *self.profile.trtexec_flags().split()]
        parts += self.options.flags(options)
        if output is not None:
            parts.append(f"--output={os.fspath(output)}")
        return shlex.join(parts)


@dataclass(frozen=True)
class Built:
    """What only its builder knows of a finished engine; see `Sidecar` for the attributes.

    ``plugins`` says whether plugin layers may be inside.
    """

    precision_ran: str
    targets: tuple[str, ...] = ()
    plugins: bool = False
    layers: dict[str, int] = field(default_factory=dict)
    precisions: dict[str, int] = field(default_factory=dict)
    plan: dict[str, list[int | None]] = field(default_factory=dict)
