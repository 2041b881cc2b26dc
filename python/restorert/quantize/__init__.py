"""INT8: calibration on pictures, explicit quantisation in the ONNX file, and the quality gate."""

from __future__ import annotations

from restorert.precision import DROP_LIMITS
from restorert.quantize.calibration_file import (
    CalibrationCache,
    read_calibration,
    shipped_int8,
)
from restorert.quantize.histogram import METHODS, Histogram
from restorert.quantize.measure import (
    Quality,
    check_quality,
    measure_quality,
    quality_of,
    quality_table,
    ssim,
)
from restorert.quantize.patches import Patches, read_patches
from restorert.quantize.quantize import QuantizationReport, calibrate, quantize_network

__all__ = [
    "DROP_LIMITS",
    "METHODS",
    "CalibrationCache",
    "Histogram",
    "Patches",
    "Quality",
    "QuantizationReport",
    "calibrate",
    "check_quality",
    "measure_quality",
    "quality_of",
    "quality_table",
    "quantize_network",
    "read_calibration",
    "read_patches",
    "shipped_int8",
    "ssim",
]
