"""Runs compiled OpenVINO models on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restorert.backends.openvino.module import (
    DEVICE,
    compile_options,
    core,
    first_line,
    load_module,
    precision_of,
)
from restorert.engine import device
from restorert.engine.profile import ShapeProfile
from restorert.engine.sidecar import Sidecar
from restorert.errors import DeviceMemoryError, EngineMismatchError, RestorertError


class OpenVINORunner:
    """Runs a compiled OpenVINO model on the CPU. Threads may share it; calls are serialised."""

    name = "openvino"

    def __init__(self, compiled: Any, profile: ShapeProfile, blob: Any = None) -> None:
        """Wrap a compiled model; ``blob`` is the memory that it reads its weights from."""
        self.compiled = compiled
        self.profile: ShapeProfile | None = profile
        self.version = str(load_module().__version__)
        self.precision = precision_of(compiled)
        self.device = device.cpu()
        self.torch_device = torch.device("cpu")
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._blob = blob

    @classmethod
    def load(cls, path: Path, sidecar: Sidecar) -> OpenVINORunner:
        """Load an engine file, see `Backend.load`."""
        ov = load_module()
        try:
            # OpenVINO uses the mapped weights in place and crashes once they are unmapped, so the
            # runner keeps the map. Copy-on-write, because it does not accept read-only memory.
            blob = ov.Tensor(np.memmap(path, dtype=np.uint8, mode="c"), shared_memory=True)
            # Without the options used for compilation the import would choose its own precision.
            compiled = core().import_model(blob, DEVICE, compile_options(sidecar.precision))
        except (RuntimeError, OSError, ValueError) as error:
            raise EngineMismatchError(
                f"openvino cannot load {path} ({first_line(error)}); {sidecar.cure}"
            ) from None
        return cls(compiled, sidecar.profile, blob)

    def __call__(self, x: Tensor) -> Tensor:
        # OpenVINO reads the input in place and writes into the result's own memory: no copies.
        channels = self.compiled.output(0).partial_shape[1].get_length()
        out = torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=torch.float32)
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
