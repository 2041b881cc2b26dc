"""OpenVINO: compiled for, and run on, the CPU."""

from __future__ import annotations

from pathlib import Path

from restorert.backends.base import Backend, Runner
from restorert.backends.openvino.module import arithmetic, load_module
from restorert.engine.request import BuildRequest, Built
from restorert.engine.sidecar import Sidecar
from restorert.progress import Progress


class OpenVINOBackend(Backend):
    """Builds and loads OpenVINO engines."""

    name = "openvino"
    suffix = ".openvino"

    def check_runnable(self) -> None:
        load_module()

    def version(self) -> str:
        return str(load_module().__version__)

    def onnx_precision(self, precision: str) -> str:
        # OpenVINO rounds to the precision it runs in; rounding twice would lose accuracy.
        return "int8" if precision == "int8" else "fp32"

    def arithmetic(self, precision: str) -> str:
        return arithmetic(precision)

    def build(self, request: BuildRequest, target: Path, progress: Progress | None) -> Built:
        from restorert.backends.openvino.build import build_openvino

        return build_openvino(request, target, progress)

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        from restorert.backends.openvino.run import OpenVINORunner

        return OpenVINORunner.load(path, sidecar)
