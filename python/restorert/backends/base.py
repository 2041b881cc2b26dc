"""The interface of a backend: checks its library, and builds, loads and runs engines."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from restorert.engine import device
from restorert.engine.device import Device, Host, plugin_hash
from restorert.engine.profile import ShapeProfile
from restorert.engine.request import BuildRequest, Built
from restorert.engine.sidecar import Sidecar
from restorert.precision import ENGINE_PRECISIONS
from restorert.progress import Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from restorert.networks import RestorationNetwork


class Runner(Protocol):
    """A loaded engine: takes a tensor and returns a tensor.

    Attributes:
        name, version: of the library that runs it.
        precision: the precision it really computes in.
        device: the processor it runs on.
        torch_device: the device of inputs and outputs.
        profile: accepted shapes; None for any.
    """

    name: str
    version: str
    precision: str
    device: Device
    torch_device: torch.device
    profile: ShapeProfile | None

    def __call__(self, x: Tensor) -> Tensor:
        """Run on a contiguous float32 [N, C, H, W] on ``torch_device``.

        H and W are multiples of the network's size multiple. The result belongs to the caller: a
        later call does not overwrite it.
        """
        ...


class Backend:
    """One way to run networks: an entry of `restorert.backends.BACKENDS`.

    Attributes:
        name: its name in ``runner=`` and in sidecars.
        takes: "onnx" if it builds ONNX files into engine files, see `build` and `load`; "network"
            if it runs the network itself in memory, see `run`.
        precisions: the precisions it supports.
        suffix: of its engine files.
        options: fields of `BuilderOptions` that affect what it builds.
        stands_in_for: names of backends that this one may replace.
        uses_plugins: whether its engines may use layers of restorert's TensorRT plugin library.
    """

    name: str
    takes: ClassVar[Literal["onnx", "network"]] = "onnx"
    precisions: Collection[str] = ENGINE_PRECISIONS
    suffix: str = ".engine"
    options: Collection[str] = ()
    stands_in_for: Collection[str] = ()
    uses_plugins: bool = False

    def check_runnable(self) -> None:
        """Raise RunnerUnavailableError if it cannot run on this machine."""

    def check_buildable(self) -> None:
        """Raise RunnerUnavailableError if it cannot build engines on this machine."""
        self.check_runnable()

    def version(self) -> str:
        """The library's version."""
        raise NotImplementedError

    def device(self) -> Device:
        """The device that engines are built for; the CPU if the right kind is missing."""
        return device.cpu()

    def host(self) -> Host:
        """This backend on this machine."""
        plugins = plugin_hash() if self.uses_plugins else None
        return Host(self.name, self.version(), self.device(), plugins)

    def onnx_precision(self, precision: str) -> str:
        """The precision of the ONNX file that an engine of ``precision`` is built from."""
        return precision

    def arithmetic(self, precision: str) -> str:
        """The precision that fp32, fp16 or bf16 is really computed in on this machine."""
        return precision

    def build(self, request: BuildRequest, target: Path, progress: Progress | None) -> Built:
        """Write an engine file; ``target`` is replaced only when the file is complete.

        Raises:
            BuildError: the library failed, or ran nothing in the requested precision; one line.
            RunnerUnavailableError: the library is not usable.
        """
        raise NotImplementedError

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        """Load an engine file whose sidecar has been checked.

        Raises:
            EngineMismatchError: the library cannot load it.
        """
        raise NotImplementedError

    def run(self, network: RestorationNetwork, precision: str, *, deploy: bool = True) -> Runner:
        """Make a runner of the network itself, in its deploy form or as published.

        Raises:
            InputError: a weight overflows the precision.
        """
        raise NotImplementedError
