"""Plans told from a builder's log, against sums by hand."""

from __future__ import annotations

from restorert.backends.tensorrt.plan import Plan, read_plan


def _tensor(name: str, dimensions: str, kind: str = "Half") -> str:
    return f"{{ Name: {name}, Dimensions: [{dimensions}], Format/Datatype: {kind} }}"


def _line(name: str, kind: str, inputs: str, constants: str, outputs: str) -> str:
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [{inputs}], Constants: [{constants}], "
        f"Outputs: [{outputs}], TacticName: x, Metadata: [ONNX Layer: node_{name}]"
    )


PICTURE = _tensor("x", "1,3,5,7")
CONVOLUTION = _line(
    "conv1",
    "correlation",
    f"{PICTURE}, {PICTURE}",
    _tensor("w", "4,3,3,3"),
    _tensor("y", "1,4,5,7"),
)
SLICE = _line("__myl_Slic_0x1", "kgen", _tensor("y", "1,4,5,7"), "", _tensor("z", "1,1,5,7"))
PRODUCT = _line(
    "gemm", "gemm", _tensor("z", "1,35", "Int8"), _tensor("v", "35,9", "Int8"), _tensor("o", "1,9")
)


def test_bytes_kinds_and_precisions() -> None:
    plan = read_plan(["Engine begins", f"{CONVOLUTION}\n{SLICE}", PRODUCT])
    assert plan is not None
    convolution, moved, product = plan.kernels
    # a tensor that is named twice is read once
    assert (convolution.read_bytes, convolution.written_bytes) == (2 * (105 + 108), 2 * 140)
    assert (convolution.onnx, convolution.precision) == (("node_conv1",), "fp16")
    # of what is sliced only the slice is read
    assert (moved.read_bytes, moved.written_bytes) == (2 * 35, 2 * 35)
    assert (product.read_bytes, product.written_bytes) == (35 + 315, 2 * 9)
    assert plan.by_kind() == {
        "convolution": (1, 706),
        "matrix product": (1, 368),
        "layout": (1, 140),
    }
    assert plan.total_bytes == 706 + 368 + 140
    assert plan.precisions() == {"fp16": 1, "int8": 1}


def test_sizes_that_are_not_known() -> None:
    plan = read_plan([CONVOLUTION, CONVOLUTION.replace("1,3,5,7", "-1,3,-1,-1")])
    assert plan is not None
    assert [kernel.total_bytes for kernel in plan.kernels] == [706, None]
    assert plan.total_bytes is None
    assert plan.by_kind() == {"convolution": (2, None)}


def test_logs_without_a_plan() -> None:
    assert read_plan([]) is None
    assert read_plan(["Name: x", "LayerType: gemm, Inputs: []"]) is None
    assert Plan(()).total_bytes == 0
