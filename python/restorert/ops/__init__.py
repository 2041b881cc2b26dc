"""Fused ops: torch ops with CPU and CUDA kernels, an ONNX function and a TensorRT plugin each.

`SPECS` is the registry that tests, benchmarks and the exporter iterate.
"""

from __future__ import annotations

from restorert.ops import channel_attention as _channel_attention
from restorert.ops import conv_lstm_gates as _conv_lstm_gates
from restorert.ops import half_instance_norm as _half_instance_norm
from restorert.ops import layer_norm_2d as _layer_norm_2d
from restorert.ops import memory_read as _memory_read
from restorert.ops import simple_gate_mean as _simple_gate_mean
from restorert.ops.channel_attention import channel_attention
from restorert.ops.conv_lstm_gates import conv_lstm_gates
from restorert.ops.half_instance_norm import half_instance_norm
from restorert.ops.layer_norm_2d import layer_norm_2d
from restorert.ops.memory_read import derive_prototypes, memory_read
from restorert.ops.simple_gate_mean import simple_gate_mean
from restorert.ops.spec import OpCase, OpSpec

# Adding an op: one file beside this one, one import and one line here, one folder in csrc/ops.
SPECS: tuple[OpSpec, ...] = (
    _half_instance_norm.SPEC,
    _channel_attention.SPEC,
    _conv_lstm_gates.SPEC,
    _memory_read.SPEC,
    _layer_norm_2d.SPEC,
    _simple_gate_mean.SPEC,
)

DOMAIN = "restorert"
"""Namespace of the torch ops, the ONNX functions and the TensorRT plugins."""

__all__ = [
    "DOMAIN",
    "SPECS",
    "OpCase",
    "OpSpec",
    "channel_attention",
    "conv_lstm_gates",
    "derive_prototypes",
    "half_instance_norm",
    "layer_norm_2d",
    "memory_read",
    "simple_gate_mean",
]
