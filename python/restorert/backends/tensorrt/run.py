"""The NVIDIA runner, for both TensorRT and TensorRT-RTX."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor

from restorert.backends.tensorrt.module import Messages, load_module, load_plugins
from restorert.engine import device as devices
from restorert.engine.profile import ShapeProfile
from restorert.engine.sidecar import Sidecar
from restorert.errors import (
    Cure,
    DeviceMemoryError,
    EngineMismatchError,
    InputError,
    RunnerUnavailableError,
)


class TensorRTRunner:
    """Runs a deserialised engine on the current CUDA device.

    The CUDA graph of the last shape is kept: a video replays it, and a new shape records a new one.
    Threads may share a runner; calls are serialised.
    """

    def __init__(self, path: Path, sidecar: Sidecar, *, cuda_graph: bool = True) -> None:
        trt = load_module(sidecar.runner)
        device = devices.cuda()
        if device is None:
            raise RunnerUnavailableError(
                f"{sidecar.runner} needs an NVIDIA GPU and torch sees none", Cure.OTHER_RUNNER
            )
        if sidecar.plugins_sha256:
            load_plugins(trt)
        self.name = sidecar.runner
        self.version = str(trt.__version__)
        self.precision = sidecar.precision_ran
        self.device = device
        self.torch_device = torch.device("cuda", torch.cuda.current_device())
        self.profile: ShapeProfile | None = sidecar.profile
        self._messages = Messages(trt)
        self._runtime = trt.Runtime(self._messages.logger)
        self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise EngineMismatchError(
                f"{self.name} cannot load {path} ({self._messages.last_error()}); {sidecar.cure}"
            )
        self._context = self.engine.create_execution_context()
        if self._context is None:
            raise DeviceMemoryError(
                f"not enough memory for {path} on {device.name} "
                f"({self._messages.last_error()}); build for a smaller maximum"
            )
        self._input, self._output = (self.engine.get_tensor_name(i) for i in range(2))
        if self.engine.get_tensor_mode(self._input) != trt.TensorIOMode.INPUT:
            self._input, self._output = self._output, self._input
        self._cuda_graph = cuda_graph
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Tensor] | None = None
        self._lock = threading.Lock()
        self._done = torch.cuda.Event()

    def __call__(self, x: Tensor) -> Tensor:
        with self._lock:
            # Another thread's stream may still be using the context and the recorded buffers.
            stream = torch.cuda.current_stream(self.torch_device)
            stream.wait_event(self._done)
            out = self._run(x)
            self._done.record(stream)
        return out

    def _run(self, x: Tensor) -> Tensor:
        if not self._cuda_graph:
            out = self._prepare(x)
            self._enqueue(torch.cuda.current_stream(self.torch_device))
            return out
        if self._recorded is None or self._recorded[1].shape != x.shape:
            self._record(x)
        assert self._recorded is not None
        graph, graph_input, graph_output = self._recorded
        graph_input.copy_(x)
        graph.replay()
        return graph_output.clone()

    def _prepare(self, x: Tensor) -> Tensor:
        if not self._context.set_input_shape(self._input, tuple(x.shape)):
            raise InputError(
                f"{self.name} refused the shape {tuple(x.shape)}: "
                f"{self._messages.last_error('outside the profile')}"
            )
        out = torch.empty(
            tuple(self._context.get_tensor_shape(self._output)), device=self.torch_device
        )
        self._context.set_tensor_address(self._input, x.data_ptr())
        self._context.set_tensor_address(self._output, out.data_ptr())
        return out

    def _enqueue(self, stream: torch.cuda.Stream) -> None:
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise DeviceMemoryError(f"{self.name} failed: {self._messages.last_error()}")

    def _record(self, x: Tensor) -> None:
        self._recorded = None  # frees the last shape's buffers
        graph_input = torch.empty_like(x)
        out = self._prepare(graph_input)
        stream = torch.cuda.Stream(self.torch_device)
        stream.wait_stream(torch.cuda.current_stream(self.torch_device))
        # The first enqueue after a change of shape does setup work that cannot be recorded.
        self._enqueue(stream)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._enqueue(stream)
        self._recorded = (graph, graph_input, out)
