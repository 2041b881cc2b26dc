"""The interface of a backend: checking its library, building engines, loading and running them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from restorert.engine import device
from restorert.engine.device import Device
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


class Backend:
    """One way to run networks: an entry of `restorert.backends.BACKENDS`.

    Attributes:
        name: what ``runner=`` and sidecars say.
        takes: "onnx" where ONNX files are built into engine files, see `build` and `load`;
            "network" where the network itself runs in memory, see `run`.
        precisions: that it can be asked for.
        suffix: of its engine files.
        options: fields of `BuilderOptions` that change what it builds.
        stands_in_for: names of backends in whose place this one may be used.
        uses_plugins: whether its engines may hold layers of restorert's TensorRT plugin library.
    """

    name: str
    takes: ClassVar[Literal["onnx", "network"]] = "onnx"
    precisions: Collection[str] = ENGINE_PRECISIONS
    suffix: str = ".engine"
    options: Collection[str] = ()
    stands_in_for: Collection[str] = ()
    uses_plugins: bool = False

    def check_runnable(self) -> None:
        """Raise RunnerUnavailableError where it cannot run here."""

    def check_buildable(self) -> None:
        """Raise RunnerUnavailableError where engines cannot be built here."""
        self.check_runnable()

    def version(self) -> str:
        """The library's version."""
        raise NotImplementedError

    def device(self) -> Device:
        """The device engines are built for; the CPU where there is none of the right kind."""
        return device.cpu()

    def onnx_precision(self, precision: str) -> str:
        """The precision of the ONNX file that an engine of ``precision`` is built from."""
        return precision

    def arithmetic(self, precision: str) -> str:
        """What fp32, fp16 or bf16 is computed in on this machine's device."""
        return precision

    def build(self, request: BuildRequest, target: Path, progress: Progress | None) -> Built:
        """Write an engine file; ``target`` is replaced only when the file is complete.

        Raises:
            BuildError: the library refused.
        """
        raise NotImplementedError

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        """Load a file whose sidecar has been checked.

        Raises:
            EngineMismatchError: the library cannot load it.
        """
        raise NotImplementedError

    def run(self, network: RestorationNetwork, precision: str, *, deploy: bool = True) -> Runner:
        """Take a network itself, in its deploy form or as published.

        Raises:
            InputError: a weight that overflows the precision.
        """
        raise NotImplementedError
