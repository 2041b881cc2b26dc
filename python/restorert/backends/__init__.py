"""The backends: each is one folder and one entry in the list."""

from __future__ import annotations

from collections.abc import Sequence

from restorert.backends.base import Backend, Runner
from restorert.backends.cuda import CUDABackend
from restorert.backends.openvino import OpenVINOBackend
from restorert.backends.tensorrt import TensorRTBackend
from restorert.backends.tensorrt.module import TENSORRT, TENSORRT_RTX
from restorert.backends.torch import TorchBackend
from restorert.errors import InputError, RestorertError, RunnerUnavailableError

__all__ = ["BACKENDS", "Backend", "Runner", "backend_of", "choose", "runner_names"]

# To add a backend, add a folder next to this file and a line here, at its place in "auto".
BACKENDS: list[Backend] = [
    TensorRTBackend(TENSORRT),
    TensorRTBackend(TENSORRT_RTX),
    CUDABackend(),
    OpenVINOBackend(),
    TorchBackend(),
]


def runner_names() -> list[str]:
    """The valid values of ``runner=``."""
    return ["auto", *(backend.name for backend in BACKENDS)]


def backend_of(name: str) -> Backend:
    """The backend called ``name``.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise InputError(f"unknown runner {name!r}; expected {', '.join(runner_names())}")


def choose(
    runner: str = "auto",
    *,
    given: Sequence[str] = ("onnx",),
    precision: str | None = None,
    to_run: bool = True,
) -> Backend:
    """The first backend in the list that matches ``runner`` and works on this machine.

    Args:
        runner: a name, or "auto" for any. If the named backend cannot be used, one that stands in
            for it is used instead.
        given: what the backend may take: "onnx", "network" or both.
        precision: the backend must support it; None for no requirement.
        to_run: False to only build an engine, for which TensorRT-RTX needs no GPU.

    Raises:
        InputError: unknown name, or the backend takes something else or lacks the precision.
        RunnerUnavailableError: none works on this machine; the message says why.
    """
    if runner != "auto":
        backend_of(runner)
    unfit: RestorertError | None = None
    unavailable = []
    for backend in BACKENDS:
        if runner not in ("auto", backend.name, *backend.stands_in_for):
            continue
        try:
            _check_fit(backend, given, precision)
            backend.check_runnable() if to_run else backend.check_buildable()
            return backend
        except RunnerUnavailableError as error:
            unavailable.append(str(error))
        except InputError as error:
            unfit = unfit or error
    if unavailable or unfit is None:
        raise RunnerUnavailableError("; ".join(unavailable))
    raise unfit


def _check_fit(backend: Backend, given: Sequence[str], precision: str | None) -> None:
    if backend.takes not in given:
        raise InputError(
            f"the {backend.name} runner runs networks in memory: it takes no ONNX file and has no "
            "engine files"
        )
    if precision is not None and precision not in backend.precisions:
        others = ", ".join(other.name for other in BACKENDS if precision in other.precisions)
        raise InputError(f"the {backend.name} runner has no {precision}; {others} have it")
