"""ONNX -> a compiled OpenVINO model for this CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path

from restorert.backends.openvino.module import (
    DEVICE,
    compile_options,
    core,
    count_precisions,
    first_line,
    load_module,
    precision_of,
)
from restorert.engine import device
from restorert.engine.request import BuildRequest, Built
from restorert.errors import BuildError, InputError
from restorert.export.onnx_file import inline_functions
from restorert.files import replace_atomically
from restorert.progress import Progress


def build_openvino(request: BuildRequest, target: Path, progress: Progress | None = None) -> Built:
    """Compile an ONNX file for this CPU and write the compiled model.

    The file is fp32 or int8: OpenVINO rounds to the precision it runs in, and rounding twice would
    lose accuracy.

    Args:
        request: what to build; for ``precision`` see `compile_options`.
        target: replaced only when the file is complete.
        progress: called with what is being done and the share done.

    Raises:
        BuildError: OpenVINO refused; its reason in one line.
        RunnerUnavailableError: openvino is not installed.
    """
    openvino = load_module()
    if progress:
        progress("compiling for the CPU", 0.0)
    try:
        with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
            inlined = inline_functions(request.onnx.path, Path(folder) / "inlined.onnx")
            model = core().read_model(inlined)
            dimensions = [
                low if low == high else openvino.Dimension(low, high)
                for low, high in zip(request.profile.min, request.profile.max, strict=True)
            ]
            model.reshape(openvino.PartialShape(dimensions))
            compiled = core().compile_model(model, DEVICE, compile_options(request.precision))
            blob = compiled.export_model()
    except InputError as error:
        raise BuildError(f"openvino could not build: {error}") from None
    except Exception as error:  # openvino and onnx raise many types
        raise BuildError(f"openvino could not build: {first_line(error)}") from None
    precisions = count_precisions(compiled)
    if request.precision == "int8" and not precisions.get("int8"):
        raise BuildError(
            f"openvino runs none of this file's layers in int8 on {device.cpu().name}; use fp16"
        )
    try:
        with replace_atomically(target) as temporary, open(temporary, "wb") as stream:
            stream.write(blob if isinstance(blob, bytes) else blob.getbuffer())
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror or error}") from None
    if progress:
        progress("compiling for the CPU", 1.0)
    return Built(precision_of(compiled), precisions=precisions)
