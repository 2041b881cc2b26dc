"""The module ``openvino``, and what is read off the models that it compiles."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

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

    Without it openvino takes its own stub. The user's choice (`opt_in_out`) is left as it is.
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
    """One OpenVINO core for the process."""
    return load_module().Core()


def arithmetic(precision: str) -> str:
    """What this CPU computes in where ``precision`` is asked for: fp32, fp16 or bf16.

    A CPU has no fp16 convolutions (but for AMX-FP16): both half precisions, and what an int8 file
    leaves in one, run as bf16 where the CPU has bf16 arithmetic, and as fp32 elsewhere.
    """
    if precision == "fp32":
        return "fp32"
    if "amx_fp16" in device.cpu().capability and precision == "fp16":
        return "fp16"
    return "bf16" if device.cpu_has_bf16() else "fp32"


def compile_options(precision: str) -> dict[str, Any]:
    """Compile for low latency at the precision the CPU has for the asked one, see `arithmetic`."""
    hints = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hints[arithmetic(precision)],
    }


def precision_of(compiled: Any) -> str:
    """What the compiled model's convolutions really run in: fp32, fp16, bf16 or int8.

    Read from the runtime graph and not from the hint: the commonest precision by node count.
    """
    counts = count_precisions(compiled)
    if not counts:
        hint = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        return _PRECISIONS.get(hint, hint)
    return max(counts, key=lambda name: counts[name])


_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}


def count_precisions(compiled: Any) -> dict[str, int]:
    """How many convolutions and matrix products of a compiled model run in each precision."""
    counts: dict[str, int] = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = str(info["layerType"].astype(str)) if "layerType" in info else ""
        if kind in ("Convolution", "Deconvolution", "FullyConnected", "MatMul"):
            precision = str(info["runtimePrecision"].astype(str)).lower()
            precision = _PRECISIONS.get(precision, precision)
            counts[precision] = counts.get(precision, 0) + 1
    return counts


def first_line(error: BaseException) -> str:
    """OpenVINO's errors are many lines, the last of which holds the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
