"""Network -> ONNX: one file that TensorRT, TensorRT-RTX, ONNX Runtime and OpenVINO all take."""

from __future__ import annotations

from restorert.export.onnx_export import (
    INPUT_NAME,
    OUTPUT_NAME,
    Precision,
    export_onnx,
    inline_functions,
    read_metadata,
)

__all__ = [
    "INPUT_NAME",
    "OUTPUT_NAME",
    "Precision",
    "export_onnx",
    "inline_functions",
    "read_metadata",
]
