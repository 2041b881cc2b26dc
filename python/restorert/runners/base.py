"""The protocols that every runner follows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from restorert.engine.environment import Device
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.sidecar import Sidecar
from restorert.engine.tensorrt_build import Progress


class Runner(Protocol):
    """A loaded engine: tensor in, tensor out, nothing else.

    Attributes:
        name, version: of the library that runs it.
        precision: what the arithmetic really is.
        device: the processor it runs on.
        torch_device: where inputs must be and outputs are.
        profile: accepted shapes; None takes any.
    """

    name: str
    version: str
    precision: str
    device: Device
    torch_device: torch.device
    profile: ShapeProfile | None

    def __call__(self, x: Tensor) -> Tensor:
        """[N, C, H, W] float32 on ``torch_device``, contiguous, H and W in the network's multiples.

        The result is the caller's: a later call does not overwrite it.
        """
        ...


class Backend(Protocol):
    """How engines of one runner are built and loaded.

    Attributes:
        name: what ``runner=`` and sidecars say.
        suffix: of its engine files.
    """

    name: str
    suffix: str

    def check_buildable(self) -> None:
        """Raise RunnerUnavailableError where engines cannot be built here."""
        ...

    def check_runnable(self) -> None:
        """Raise RunnerUnavailableError where engines cannot be run here."""
        ...

    def version(self) -> str:
        """Of the library."""
        ...

    def device(self) -> Device:
        """The device engines are built for; of the host where it has none of the right kind."""
        ...

    def onnx_precision(self, precision: str) -> str:
        """The precision of the ONNX file that an engine of ``precision`` is built from."""
        ...

    def arithmetic(self, precision: str) -> str:
        """What fp32, fp16 or bf16 is computed in on this machine's device."""
        ...

    def build(
        self,
        onnx_path: str | os.PathLike[str],
        target: str | os.PathLike[str],
        profile: ShapeProfile,
        options: BuilderOptions,
        precision: str,
        progress: Progress | None,
    ) -> dict[str, Any]:
        """Write an engine file; returns what only the builder knows for the sidecar."""
        ...

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        """Load a file whose sidecar has been checked."""
        ...
