"""Network -> ONNX: one file for TensorRT, TensorRT-RTX, ONNX Runtime and, inlined, OpenVINO."""

from __future__ import annotations

from restorert.export.onnx_export import INPUT_NAME, OUTPUT_NAME, export_onnx
from restorert.export.onnx_file import OnnxFile, inline_functions, read_metadata

__all__ = [
    "INPUT_NAME",
    "OUTPUT_NAME",
    "OnnxFile",
    "export_onnx",
    "inline_functions",
    "read_metadata",
]
