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
from restorert.errors import BuildError
from restorert.export.onnx_file import inline_functions
from restorert.files import writing
from restorert.progress import Progress, stage


def build_openvino(request: BuildRequest, target: Path, progress: Progress | None = None) -> Built:
    """Compile an fp32 or int8 ONNX file for this CPU, see `Backend.build` and `compile_options`."""
    openvino = load_module()
    try:
        with (
            stage("compiling for the CPU", progress),
            tempfile.TemporaryDirectory(prefix="restorert-") as folder,
        ):
            inlined = inline_functions(request.onnx.path, Path(folder) / "inlined.onnx")
            model = core().read_model(inlined)
            dimensions = [
                low if low == high else openvino.Dimension(low, high)
                for low, high in zip(request.profile.min, request.profile.max, strict=True)
            ]
            model.reshape(openvino.PartialShape(dimensions))
            compiled = core().compile_model(model, DEVICE, compile_options(request.precision))
            blob = compiled.export_model()
    except Exception as error:  # openvino and onnx raise many types
        raise BuildError(f"openvino could not build: {first_line(error)}") from None
    precisions = count_precisions(compiled)
    if request.precision == "int8" and not precisions.get("int8"):
        raise BuildError(
            f"openvino runs none of this file's layers in int8 on {device.cpu().name}; use fp16"
        )
    with writing(target, BuildError) as temporary:
        temporary.write_bytes(blob if isinstance(blob, bytes) else blob.getbuffer())
    return Built(precision_of(compiled), precisions=precisions)
