"""The CPU runner."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restorert.engine import environment
from restorert.engine.environment import Device
from restorert.engine.openvino_build import (
    DEVICE,
    arithmetic,
    build_openvino,
    compile_options,
    core,
    first_line,
    load_module,
    precision_of,
)
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.sidecar import Sidecar
from restorert.engine.tensorrt_build import Progress
from restorert.errors import DeviceMemoryError, EngineMismatchError, RestorertError
from restorert.runners.base import Runner


class OpenVINORunner:
    """Runs a compiled OpenVINO model on the CPU. Threads may share it: they take turns."""

    name = "openvino"

    def __init__(self, compiled: Any, profile: ShapeProfile, blob: Any = None) -> None:
        """Take a compiled model, and ``blob``, the memory that it reads its weights from."""
        self.compiled = compiled
        self.profile: ShapeProfile | None = profile
        self.version = OpenVINOBackend().version()
        self.precision = precision_of(compiled)
        self.device = environment.cpu()
        self.torch_device = torch.device("cpu")
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._blob = blob

    def __call__(self, x: Tensor) -> Tensor:
        # OpenVINO reads the input in place and writes into the result's own memory: no copies.
        out = torch.empty((x.shape[0], self._out_channels, *x.shape[2:]), dtype=torch.float32)
        ov = load_module()
        request = self._request
        try:
            with self._lock:  # a request runs one inference at a time, on all cores
                request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))
                request.set_output_tensor(ov.Tensor(out.numpy(), shared_memory=True))
                request.infer()
        except RuntimeError as error:
            if "alloc" in str(error):
                raise DeviceMemoryError(first_line(error)) from None
            raise RestorertError(f"openvino failed: {first_line(error)}") from None
        return out

    @property
    def _out_channels(self) -> int:
        return int(self.compiled.output(0).partial_shape[1].get_length())


class OpenVINOBackend:
    """Builds and loads OpenVINO engines."""

    name = "openvino"
    suffix = ".openvino"

    def check_buildable(self) -> None:
        load_module()

    check_runnable = check_buildable

    def version(self) -> str:
        return str(load_module().__version__)

    def device(self) -> Device:
        return environment.cpu()

    def onnx_precision(self, precision: str) -> str:
        # It rounds to the half precision that it runs in; rounding twice would cost accuracy.
        return "int8" if precision == "int8" else "fp32"

    def arithmetic(self, precision: str) -> str:
        return arithmetic(precision)

    def build(
        self,
        onnx_path: str | os.PathLike[str],
        target: str | os.PathLike[str],
        profile: ShapeProfile,
        options: BuilderOptions,
        precision: str,
        progress: Progress | None,
    ) -> dict[str, Any]:
        if progress:
            progress("compiling for the CPU", 0.0)
        facts = build_openvino(onnx_path, target, profile, precision)
        if progress:
            progress("compiling for the CPU", 1.0)
        return facts

    def load(self, path: Path, sidecar: Sidecar) -> Runner:
        ov = load_module()
        try:
            # Mapped, not read: OpenVINO uses the weights where they are, and crashes where they are
            # gone, so the runner keeps the map. Copy on write, since it takes no read-only memory.
            blob = ov.Tensor(np.memmap(path, dtype=np.uint8, mode="c"), shared_memory=True)
            # Without the options of the compilation the import would choose its own precision.
            compiled = core().import_model(blob, DEVICE, compile_options(sidecar.precision))
        except (RuntimeError, OSError, ValueError) as error:
            raise EngineMismatchError(
                f"openvino cannot load {path} ({first_line(error)}); {sidecar.cure}"
            ) from None
        return OpenVINORunner(compiled, sidecar.profile, blob)
