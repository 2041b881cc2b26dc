"""ONNX -> a compiled OpenVINO model for this CPU."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from restorert.engine import environment
from restorert.engine.profile import ShapeProfile
from restorert.errors import BuildError, InputError, RunnerUnavailableError
from restorert.export import inline_functions
from restorert.files import replace_atomically

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
    if "amx_fp16" in environment.cpu().capability and precision == "fp16":
        return "fp16"
    return "bf16" if environment.cpu_has_bf16() else "fp32"


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


def build_openvino(
    onnx_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    profile: ShapeProfile,
    precision: str,
) -> dict[str, Any]:
    """Compile an ONNX file for this CPU and write the compiled model.

    Args:
        onnx_path: from `restorert.export.export_onnx`, fp32: OpenVINO rounds to the precision it
            runs in, and rounding twice would lose accuracy. Or from `restorert.quantize_network`.
        target: replaced only when the file is complete.
        profile: shapes to accept.
        precision: asked for; see `compile_options`.

    Returns:
        Facts for the sidecar: ``precision_ran``, and ``precisions``, the count of convolutions and
        matrix products by the precision that they run in.

    Raises:
        BuildError: OpenVINO refused; its reason in one line.
        RunnerUnavailableError: openvino is not installed.
    """
    openvino = load_module()
    try:
        with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
            inlined = inline_functions(onnx_path, Path(folder) / "inlined.onnx")
            model = core().read_model(inlined)
            dimensions = [
                low if low == high else openvino.Dimension(low, high)
                for low, high in zip(profile.min, profile.max, strict=True)
            ]
            model.reshape(openvino.PartialShape(dimensions))
            compiled = core().compile_model(model, DEVICE, compile_options(precision))
            blob = compiled.export_model()
    except InputError as error:
        raise BuildError(f"openvino could not build: {error}") from None
    except Exception as error:  # openvino and onnx raise what they like
        raise BuildError(f"openvino could not build: {first_line(error)}") from None
    precisions = count_precisions(compiled)
    if precision == "int8" and not precisions.get("int8"):
        raise BuildError(
            f"openvino runs none of this file's layers in int8 on {environment.cpu().name}; "
            "use fp16"
        )
    try:
        with replace_atomically(target) as temporary, open(temporary, "wb") as stream:
            stream.write(blob if isinstance(blob, bytes) else blob.getbuffer())
    except OSError as error:
        raise BuildError(f"cannot write {os.fspath(target)}: {error.strerror or error}") from None
    return {"precision_ran": precision_of(compiled), "precisions": precisions}


def first_line(error: BaseException) -> str:
    """OpenVINO's errors are many lines, the last of which holds the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
