"""The module ``openvino``, and the precisions that its compiled models run in."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from restorert.backends.torch import cpu_precision
from restorert.engine import device
from restorert.errors import RunnerUnavailableError

DEVICE = "CPU"


@functools.cache
def load_module() -> ModuleType:
    """The module ``openvino``.

    Raises:
        RunnerUnavailableError: not installed.
    """
    try:
        with _no_telemetry():
            import openvino
    except ImportError as error:
        raise RunnerUnavailableError(
            f"openvino is not usable ({error}); install it with: pip install openvino"
        ) from None
    return openvino


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Hide the package that reports each import of openvino to Intel.

    openvino then uses its own stub. The user's choice (`opt_in_out`) is not changed.
    """
    name = "openvino_telemetry"
    before = {key: sys.modules[key] for key in (name,) if key in sys.modules}
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


@functools.cache
def core() -> Any:
    """The process's only OpenVINO core."""
    return load_module().Core()


def arithmetic(precision: str) -> str:
    """The precision this CPU computes in when asked for ``precision``: fp32, fp16 or bf16.

    CPUs have no fp16 convolutions (except with AMX-FP16): both half precisions, and the layers that
    an int8 file leaves in one, run as bf16 if the CPU has bf16 arithmetic, else as fp32.
    """
    if precision == "fp16" and "amx_fp16" in device.cpu().capability:
        return "fp16"
    return cpu_precision(precision)


def compile_options(precision: str) -> dict[str, Any]:
    """Options for low latency and the precision that `arithmetic` gives for ``precision``."""
    hints = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hints[arithmetic(precision)],
    }


def precision_of(compiled: Any) -> str:
    """The precision a compiled model's convolutions really run in: fp32, fp16, bf16 or int8.

    This is the most frequent one in the runtime graph, which can differ from the hint.
    """
    counts = count_precisions(compiled)
    if not counts:
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        return _PRECISIONS.get(hint, hint)
    return max(counts, key=lambda name: counts[name])


_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}


def count_precisions(compiled: Any) -> dict[str, int]:
    """The number of a model's convolutions and matrix products that run in each precision."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            precision = str(info["runtimePrecision"].astype(str)).lower()
            counts[_PRECISIONS.get(precision, precision)] += 1
    return dict(counts)


def first_line(error: BaseException) -> str:
    """The last line of an OpenVINO error, which has many lines and ends with the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
