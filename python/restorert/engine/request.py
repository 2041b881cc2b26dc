"""The input of an engine builder, and what it reports about the finished engine."""

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
    """Everything that determines an engine, except the library and the machine that build it.

    Attributes:
        onnx: the file to build from; the engine has its types.
        precision: as requested: fp32, fp16, bf16, int8.
        profile: shapes to accept.
        options: for the builder.
        weights_sha256: of the network; empty if the weights came in an ONNX file.
        weights_from: see `Sidecar`.
        named_by: flags of `restorert build` that select the network; empty if none can, because
            its weights are not in a file.
    """

    onnx: OnnxFile
    precision: str
    profile: ShapeProfile
    options: BuilderOptions
    weights_sha256: str = ""
    weights_from: str = ""
    named_by: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The request's part of the cache key."""
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
        """The command line that builds the same engine again; empty if none can.

        Args:
            runner: the one that built it.
            options: fields of `BuilderOptions` that the runner uses.
            output: the engine file; None if it is in the cache.
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
    """What only its builder knows about a finished engine; see `Sidecar` for the attributes.

    ``plugins`` is true if the engine may contain plugin layers.
    """

    precision_ran: str
    targets: tuple[str, ...] = ()
    plugins: bool = False
    layers: dict[str, int] = field(default_factory=dict)
    precisions: dict[str, int] = field(default_factory=dict)
    plan: dict[str, list[int | None]] = field(default_factory=dict)
