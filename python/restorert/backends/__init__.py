"""The backends: one folder each, and one entry of the list."""

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

# Adding a backend: one folder beside this file, one line here, where "auto" shall try it.
BACKENDS: list[Backend] = [
    TensorRTBackend(TENSORRT),
    TensorRTBackend(TENSORRT_RTX),
    CUDABackend(),
    OpenVINOBackend(),
    TorchBackend(),
]


def runner_names() -> list[str]:
    """What ``runner=`` takes."""
    return ["auto", *(backend.name for backend in BACKENDS)]


def backend_of(name: str) -> Backend:
    """The backend of this name.

    Raises:
        InputError: there is none; the message lists the names.
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
    """The first backend of the list that ``runner`` can mean and that works here.

    Args:
        runner: a name; "auto" means any. Where a backend of the name cannot be used, another that
            stands in for it may be.
        given: what it may take: "onnx", "network" or both.
        precision: that it must have; None asks for none.
        to_run: False where an engine is only built, for which TensorRT-RTX needs no GPU.

    Raises:
        InputError: unknown name, or a backend that takes something else or lacks the precision.
        RunnerUnavailableError: none can be used here; the message says why.
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
        raise InputError(f"the {backend.name} runner has no {precision}; it is there with {others}")
