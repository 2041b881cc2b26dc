"""TensorRT and TensorRT-RTX: two entries in the list, with one code path."""

from __future__ import annotations

from pathlib import Path

from restorert.backends.base import Backend, Runner
from restorert.backends.tensorrt.module import Flavour, load_module, load_plugins
from restorert.engine import device
from restorert.engine.device import Device
from restorert.engine.request import BuildRequest, Built
from restorert.engine.sidecar import Sidecar
from restorert.errors import RunnerUnavailableError
from restorert.progress import Progress

__all__ = ["TensorRTBackend", "load_plugins"]


class TensorRTBackend(Backend):
    """Builds and loads engines with one of the two modules."""

    def __init__(self, flavour: Flavour) -> None:
        self.name = flavour.name
        self.flavour = flavour
        self.stands_in_for = flavour.stands_in_for
        self.uses_plugins = flavour.plugins
        self.options = {"workspace_mib", "optimization_level"}
        if flavour.builds_without_gpu:
            self.options.add("compute_capabilities")

    def check_buildable(self) -> None:
        load_module(self.name)
        if not self.flavour.builds_without_gpu and device.cuda() is None:
            raise RunnerUnavailableError(
                f"{self.name} needs the GPU that it builds for, and torch sees none; "
                "tensorrt_rtx builds without one: pip install tensorrt-rtx-cu13"
            )

    def check_runnable(self) -> None:
        load_module(self.name)
        if device.cuda() is None:
            raise RunnerUnavailableError(f"{self.name} needs an NVIDIA GPU and torch sees none")

    def version(self) -> str:
        return str(load_module(self.name).__version__)

    def device(self) -> Device:
        return device.cuda() or device.cpu()

    def build(self, request: BuildRequest, target: Path, progress: Progress | None) -> Built:
        from restorert.backends.tensorrt.build import build_tensorrt

        return build_tensorrt(request, target, self.name, progress)

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        from restorert.backends.tensorrt.run import TensorRTRunner

        return TensorRTRunner(path, sidecar)
