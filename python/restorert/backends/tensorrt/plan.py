"""The bytes that an engine's kernels read and write, parsed from the builder's log.

With detailed profiling verbosity TensorRT-RTX and TensorRT log every kernel of a finished plan with
its inputs, constants and outputs. This needs no GPU: without one, the bytes of its plan are the
best estimate of a network's speed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("convolution", "matrix product", "reduction", "pooling", "elementwise", "layout", "other")

_ELEMENT_BYTES = {
    "Float": 4.0,
    "Half": 2.0,
    "BFloat16": 2.0,
    "Int32": 4.0,
    "Int64": 8.0,
    "Int8": 1.0,
    "UInt8": 1.0,
    "FP8": 1.0,
    "Int4": 0.5,
    "FP4": 0.5,
    "Bool": 1.0,
}
_PRECISIONS = {"Float": "fp32", "Half": "fp16", "BFloat16": "bf16", "Int8": "int8"}
_LAYER_KINDS = {
    "correlation": "convolution",
    "convolution": "convolution",
    "deconv": "convolution",
    "deconvolution": "convolution",
    "gemm": "matrix product",
    "matrix_multiply": "matrix product",
    "fusedmha": "matrix product",
    "pooling": "pooling",
    "reformat": "layout",
    "signal": "other",
    "wait": "other",
}
# Generated kernels are named after the operators in them.
_OPERATOR_KINDS = (
    ("convolution", {"Corr", "Conv", "Deco"}),
    ("matrix product", {"Dot", "Gemm", "Fc", "Mha"}),
    ("pooling", {"Pool"}),
    ("reduction", {"Mean", "Sum", "Prod", "Norm", "Soft", "Inor"}),
)
_LAYOUT = {"Move", "Cast", "Conc", "Slic", "Tran", "Resh", "Copy", "Pad", "Gath", "Bcas", "Repl"}


@dataclass(frozen=True)
class Kernel:
    """One kernel of a plan.

    Attributes:
        name: as logged by the builder.
        kind: one of `KINDS`.
        read_bytes, written_bytes: of distinct tensors, constants included; each is counted once,
            even if the kernel reads it twice. A copy reads no more than it writes: for a slice,
            only the slice and not the whole tensor. None if a tensor's size is unknown.
        onnx: names of the ONNX nodes that it comes from.
        precision: of the first tensor that it reads: fp32, fp16, bf16, int8; "" if unknown.
    """

    name: str
    kind: str
    read_bytes: int | None
    written_bytes: int | None
    onnx: tuple[str, ...] = ()
    precision: str = ""

    @property
    def total_bytes(self) -> int | None:
        """Bytes read plus bytes written."""
        if self.read_bytes is None or self.written_bytes is None:
            return None
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class Plan:
    """The kernels of an engine."""

    kernels: tuple[Kernel, ...]

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all kernels; None if those of any kernel are unknown."""
        return _total(self.kernels)

    def by_kind(self) -> dict[str, tuple[int, int | None]]:
        """Kind -> (number of kernels, bytes), for the kinds that occur."""
        found: dict[str, tuple[int, int | None]] = {}
        for kind in KINDS:
            of_kind = [kernel for kernel in self.kernels if kernel.kind == kind]
            if of_kind:
                found[kind] = (len(of_kind), _total(of_kind))
        return found

    def precisions(self) -> dict[str, int]:
        """Precision -> number of convolutions and matrix products that run in it."""
        products = (k for k in self.kernels if k.kind in ("convolution", "matrix product"))
        return dict(Counter(kernel.precision for kernel in products if kernel.precision))


def _total(kernels: Iterable[Kernel]) -> int | None:
    sizes = [kernel.total_bytes for kernel in kernels]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def read_plan(lines: Iterable[str]) -> Plan | None:
    """The plan listed in a builder's log, or None if it lists none.

    The log of an engine of several shapes has no sizes, so its plan has no bytes.
    """
    kernels = tuple(
        _read_kernel(line)
        for message in lines
        for line in message.split("\n")
        if line.startswith("Name: ") and ", LayerType: " in line
    )
    return Plan(kernels) if kernels else None


def _read_kernel(line: str) -> Kernel:
    name = line[len("Name: ") :].split(", LayerType: ", 1)[0]
    layer_type = line.split(", LayerType: ", 1)[1].split(",", 1)[0]
    kind = _kind(name, layer_type)
    onnx = tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", line))
    inputs, constants, outputs = (
        _tensors(_section(line, section)) for section in ("Inputs", "Constants", "Outputs")
    )
    first = re.search(r"Datatype: (\w+)", _section(line, "Inputs"))
    precision = _PRECISIONS.get(first[1], first[1].lower()) if first else ""
    if inputs is None or constants is None or outputs is None:
        return Kernel(name, kind, None, None, onnx, precision)
    if kind == "layout":
        most = sum(elements for elements, _ in outputs.values())
        inputs = {name: (min(elements, most), size) for name, (elements, size) in inputs.items()}
    read, constant, written = (
        sum(math.ceil(elements * size) for elements, size in tensors.values())
        for tensors in (inputs, constants, outputs)
    )
    return Kernel(name, kind, read + constant, written, onnx, precision)


def _section(line: str, name: str) -> str:
    start = line.find(f", {name}: [")
    if start < 0:
        return ""
    begin = depth = start + len(f", {name}: [")
    level = 1
    for depth in range(begin, len(line)):  # dimensions have their own brackets
        level += (line[depth] == "[") - (line[depth] == "]")
        if level == 0:
            break
    return line[begin:depth]


def _tensors(section: str) -> dict[str, tuple[int, float]] | None:
    """Tensor name -> (elements, bytes per element), or None if a size is unknown."""
    found: dict[str, tuple[int, float]] = {}
    for name, dimensions, kind in re.findall(
        r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\],.*?Datatype: (\w+)", section
    ):
        sizes = [int(size) for size in dimensions.split(",") if size]
        if any(size < 0 for size in sizes):
            return None
        found[name] = math.prod(sizes), _ELEMENT_BYTES.get(kind, 4.0)
    return found


def _kind(name: str, layer_type: str) -> str:
    known = _LAYER_KINDS.get(layer_type.lower())
    if known is not None:
        return known
    generated = re.match(r"_*myl_([A-Za-z]+)_", name)
    words = set(re.findall(r"[A-Z][a-z0-9]*", generated[1])) if generated else set()
    for kind, operators in _OPERATOR_KINDS:
        if words & operators:
            return kind
    if not words:
        return "other"
    return "layout" if words <= _LAYOUT else "elementwise"
