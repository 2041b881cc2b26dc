"""Every op by its binding: memory, threads, misuse, nonsense. One table says what the ops take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

native = pytest.importorskip("restorert._native", exc_type=ImportError)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
HUGE = 2**62
Shape = tuple[int, ...]
Misuse = tuple[dict[str, Any], type[Exception], str]
"""Changed fields of views by name, or attributes, or None; the error; its line."""


@dataclass(frozen=True)
class Op:
    """What a binding takes.

    Attributes:
        shapes: (n, c, h, w, k) -> the shape of each tensor in the binding's order; k is free.
        outputs: the tensors that are written.
        shared: (input, output) pairs that may be the same memory.
        optional: tensors that may be None, all at once.
        workspace: whether CUDA needs one.
        misuse: what is refused, at n, c, h, w, k = 2, 4, 3, 5, 3.
    """

    shapes: Callable[[int, int, int, int, int], dict[str, Shape]]
    outputs: tuple[str, ...]
    shared: tuple[tuple[str, str], ...] = ()
    optional: tuple[str, ...] = ()
    workspace: bool = False
    misuse: list[Misuse] = field(default_factory=list)


def _misuse_of_picture(name: str, axes: str, c: int = 4) -> list[Misuse]:
    """What every op refuses of its first tensor."""
    strides = (c * 15, 15, 1, 3)
    return [
        ({name: {"shape": (c, 3, 5), "strides": (15, 5, 1)}}, ValueError,
         f"argument '{name}' has 3 dimensions; expected 4 ({axes})"),
        ({name: {"shape": (1, 2, c, 3, 5), "strides": (0, 60, 15, 5, 1)}}, ValueError,
         f"argument '{name}' has 5 dimensions; expected 4 ({axes})"),
        *(({name: {"dtype": dtype}}, TypeError,
           f"argument '{name}' has dtype {dtype}; expected float32, float16 or bfloat16")
          for dtype in ("float64", "int8", "uint8")),
        ({name: {"device": "mps"}}, ValueError,
         f"argument '{name}' is on device mps; expected cpu or cuda"),
        ({name: {"shape": (2, -c, 3, 5)}}, ValueError,
         f"argument '{name}' has shape (2, -{c}, 3, 5); expected sizes >= 0"),
        ({name: {"shape": (HUGE, HUGE, HUGE, HUGE)}}, ValueError,
         f"argument '{name}' has shape ({HUGE}, {HUGE}, {HUGE}, {HUGE}); expected a tensor whose "
         "size in bytes fits in 63 bits"),
        ({name: {"data_ptr": 0}}, ValueError,
         f"argument '{name}' is a null pointer; expected the address of its data"),
        ({name: {"offset": 1}}, ValueError,
         f"argument '{name}' is misaligned; expected an address that is a multiple of its element "
         "size"),
        *(({name: {"strides": wrong}}, ValueError,
           f"argument '{name}' has strides {wrong} for shape (2, {c}, 3, 5); expected a contiguous "
           "or channels_last tensor")
          for wrong in (strides, (-c * 15, 15, 5, 1))),
    ]  # fmt: skip


def _misuse_of_parameter(name: str, size: int, x: str) -> list[Misuse]:
    """What is refused of a vector beside a float32 picture ``x``."""
    return [
        ({name: {"shape": (size + 1,)}}, ValueError,
         f"argument '{name}' has length {size + 1}; expected {size}"),
        ({name: {"shape": (-1,)}}, ValueError,
         f"argument '{name}' has shape (-1,); expected sizes >= 0"),
        ({name: {"shape": (size, 1), "strides": (1, 1)}}, ValueError,
         f"argument '{name}' has 2 dimensions; expected 1 (a vector)"),
        ({name: {"dtype": "int32"}}, TypeError,
         f"argument '{name}' has dtype int32; expected float32, float16 or bfloat16"),
        ({name: {"dtype": "bfloat16"}}, TypeError,
         f"argument '{name}' has dtype bfloat16; expected float32, the dtype of '{x}'"),
        ({x: {"dtype": "float16"}, name: {"dtype": "bfloat16"}}, TypeError,
         f"argument '{name}' has dtype bfloat16; expected float32 or float16, the dtype of '{x}'"),
        ({name: {"data_ptr": 0}}, ValueError,
         f"argument '{name}' is a null pointer; expected the address of its data"),
        ({name: {"strides": (2,)}}, ValueError,
         f"argument '{name}' has stride 2; expected a contiguous vector"),
        ({name: {"device": "cuda", "device_index": 1}}, ValueError,
         f"argument '{name}' is on device cuda:1; expected cpu, the device of '{x}'"),
    ]  # fmt: skip


def _misuse_of_matrix(
    name: str, rows: int, columns: int, axes: str, x: str, *, parameter: bool
) -> list[Misuse]:
    of_x = f", the dtype of '{x}'" if parameter else ""
    return [
        ({name: {"shape": (rows,), "strides": (1,)}}, ValueError,
         f"argument '{name}' has 1 dimensions; expected 2 ({axes})"),
        ({name: {"shape": (rows, columns + 1)}}, ValueError,
         f"argument '{name}' has shape ({rows}, {columns + 1}); expected ({rows}, {columns}), "
         f"({axes})"),
        ({name: {"dtype": "float16"}}, TypeError,
         f"argument '{name}' has dtype float16; expected float32{of_x}"),
        ({name: {"dtype": "int8"}}, TypeError,
         f"argument '{name}' has dtype int8; expected float32, float16 or bfloat16"),
        ({name: {"strides": (1, rows)}}, ValueError,
         f"argument '{name}' has strides (1, {rows}); expected a contiguous matrix"),
        ({name: {"offset": 2}}, ValueError,
         f"argument '{name}' is misaligned; expected an address that is a multiple of its element "
         "size"),
        ({name: {"device": "cuda", "device_index": 1}}, ValueError,
         f"argument '{name}' is on device cuda:1; expected cpu, the device of '{x}'"),
    ]  # fmt: skip


def _misuse_of_like(name: str, x: str, c: int = 4, why: str | None = None) -> list[Misuse]:
    """What is refused of a picture that is to be like ``x``, or to have ``why``'s c channels."""
    strides = (c * 15, 1, c * 5, c)
    why = why or f"the shape of '{x}'"
    return [
        ({name: {"shape": (2, c, 3), "strides": (c * 3, 3, 1)}}, ValueError,
         f"argument '{name}' has 3 dimensions; expected 4 (N, C, H, W)"),
        ({name: {"shape": (2, c, 5, 3)}}, ValueError,
         f"argument '{name}' has shape (2, {c}, 5, 3); expected (2, {c}, 3, 5), {why}"),
        ({name: {"strides": strides}}, ValueError,
         f"argument '{name}' has strides {strides}; expected a contiguous tensor, as '{x}' is"),
        ({name: {"data_ptr": 0}}, ValueError,
         f"argument '{name}' is a null pointer; expected the address of its data"),
        ({name: {"device": "cuda", "device_index": 0}}, ValueError,
         f"argument '{name}' is on device cuda:0; expected cpu, the device of '{x}'"),
    ]  # fmt: skip


def _dtype(name: str, wrong: str, expected: str) -> Misuse:
    return (
        {name: {"dtype": wrong}},
        TypeError,
        f"argument '{name}' has dtype {wrong}; expected {expected}",
    )


def _overlap(output: str, other: str, *, shared: bool = False, moved: str = "") -> list[Misuse]:
    """``moved`` (the output, unless named) on some of the other one's memory; or on all of it."""
    moved = moved or output
    onto = other if moved == output else output
    kinds = "the same memory (in place) or separate memory" if shared else "separate memory"
    return [
        (
            {moved: {"onto": (onto, offset)}},
            ValueError,
            f"argument '{output}' overlaps '{other}'; expected {kinds}",
        )
        for offset in ((4, -4) if shared else (0, 4))
    ]


def _number(name: str, *values: float, minimum: str = "") -> list[Misuse]:
    return [
        (
            {name: value},
            ValueError,
            f"argument '{name}' is {value:g}; expected a finite float32{minimum}",
        )
        for value in (float("nan"), float("inf"), 1e300, *values)
    ]


QUARTER = "a quarter of the channels of 'gates'"
HALF = "half of the channels of 'x'"

OPS = {
    "half_instance_norm": Op(
        lambda n, c, h, w, k: {
            "x": (n, c, h, w), "weight": (c // 2,), "bias": (c // 2,), "out": (n, c, h, w),
        },
        outputs=("out",),
        shared=(("x", "out"),),
        workspace=True,
        misuse=[
            *_misuse_of_picture("x", "N, C, H, W"),
            ({"x": {"shape": (2, 3, 3, 5)}}, ValueError,
             "argument 'x' has 3 channels; expected an even number, half of which are normalised"),
            *_misuse_of_parameter("weight", 2, "x"),
            *_misuse_of_parameter("bias", 2, "x"),
            *_misuse_of_like("out", "x"),
            _dtype("out", "float16", "float32, the dtype of 'x'"),
            *_overlap("out", "x", shared=True),
            *_overlap("out", "weight", moved="weight"),
            *_number("eps", -1.0, minimum=" >= 0"),
            *_number("negative_slope"),
        ],
    ),
    "channel_attention": Op(
        lambda n, c, h, w, k: {
            "r": (n, c, h, w), "x": (n, c, h, w), "w_down": (k, c), "w_up": (c, k), "b_down": (k,),
            "b_up": (c,), "sums": (n, c), "out": (n, c, h, w),
        },
        outputs=("out",),
        shared=(("r", "out"), ("x", "out")),
        optional=("x", "b_down", "b_up", "sums"),
        workspace=True,
        misuse=[
            *(({"x": None, **changes}, *rest)
              for changes, *rest in _misuse_of_picture("r", "N, C, H, W")),
            *_misuse_of_like("x", "r"),
            _dtype("x", "float16", "float32, the dtype of 'r'"),
            *_misuse_of_matrix("w_down", 3, 4, "R, C", "r", parameter=True),
            ({"w_down": {"shape": (0, 4)}}, ValueError,
             "argument 'w_down' has no rows; expected at least 1"),
            *_misuse_of_matrix("w_up", 4, 3, "C, R", "r", parameter=True),
            *_misuse_of_parameter("b_down", 3, "r")[:5],
            *_misuse_of_parameter("b_up", 4, "r")[:5],
            *(({name: None}, ValueError,
               f"argument '{name}' is missing; expected both biases or neither")
              for name in ("b_down", "b_up")),
            *_misuse_of_matrix("sums", 2, 4, "N, C", "r", parameter=False),
            *_misuse_of_like("out", "r"),
            *_overlap("out", "r", shared=True),
            *_overlap("out", "x", shared=True),
            *_overlap("out", "w_up", moved="w_up"),
            *_overlap("out", "sums", moved="sums"),
        ],
    ),
    "conv_lstm_gates": Op(
        lambda n, c, h, w, k: {
            "gates": (n, 4 * c, h, w), "cell": (n, c, h, w), "hidden": (n, c, h, w),
            "next_cell": (n, c, h, w),
        },
        outputs=("hidden", "next_cell"),
        shared=(("cell", "next_cell"),),
        misuse=[
            *_misuse_of_picture("gates", "N, 4 * C, H, W", 16),
            ({"gates": {"shape": (2, 6, 3, 5)}}, ValueError,
             "argument 'gates' has 6 channels; expected a multiple of 4, for the gates i, j, f and "
             "o"),
            *_misuse_of_like("cell", "gates", why=QUARTER),
            *_misuse_of_like("hidden", "gates", why=QUARTER),
            *_misuse_of_like("next_cell", "gates", why=QUARTER),
            _dtype("cell", "float16", "float32, the dtype of 'gates'"),
            _dtype("hidden", "bfloat16", "float32, the dtype of 'gates'"),
            _dtype("next_cell", "float16", "float32, the dtype of 'cell'"),
            *_overlap("next_cell", "cell", shared=True),
            *_overlap("next_cell", "gates"),
            *_overlap("hidden", "gates"),
            *_overlap("hidden", "cell"),
            *_overlap("hidden", "next_cell"),
            *_number("forget_bias"),
        ],
    ),
    "memory_read": Op(
        lambda n, c, h, w, k: {
            "x": (n, c, h, w), "part": (k + 2, c), "instance": (k + 1, c), "semantic": (k, c),
            "semantic_out": (n, c, h, w), "instance_out": (n, c, h, w), "part_out": (n, c, h, w),
        },
        outputs=("semantic_out", "instance_out", "part_out"),
        misuse=[
            *_misuse_of_picture("x", "N, C, H, W"),
            *(({"x": {"shape": (2, c, 3, 5)}}, ValueError,
               f"argument 'x' has {c} channels; expected 1 to 16") for c in (0, 17)),
            *_misuse_of_matrix("part", 5, 4, "prototypes, C", "x", parameter=False),
            *_misuse_of_matrix("semantic", 3, 4, "prototypes, C", "x", parameter=False),
            *(({"instance": {"shape": (rows, 4)}}, ValueError,
               f"argument 'instance' has {rows} prototypes; expected 1 to 512")
              for rows in (0, 513)),
            *_misuse_of_like("semantic_out", "x"),
            *_misuse_of_like("instance_out", "x"),
            *_misuse_of_like("part_out", "x"),
            _dtype("semantic_out", "float16", "float32, the dtype of 'x'"),
            *_overlap("instance_out", "x"),
            *_overlap("semantic_out", "part_out"),
            *_overlap("part_out", "part", moved="part"),
            *_number("shrink", -0.5, minimum=" >= 0"),
        ],
    ),
    "layer_norm_2d": Op(
        lambda n, c, h, w, k: {
            "x": (n, c, h, w), "weight": (c,), "bias": (c,), "out": (n, c, h, w),
        },
        outputs=("out",),
        shared=(("x", "out"),),
        misuse=[
            *_misuse_of_picture("x", "N, C, H, W"),
            *_misuse_of_parameter("weight", 4, "x"),
            *_misuse_of_parameter("bias", 4, "x"),
            *_misuse_of_like("out", "x"),
            _dtype("out", "float16", "float32, the dtype of 'x'"),
            *_overlap("out", "x", shared=True),
            *_overlap("out", "weight", moved="weight"),
            *_number("eps", -1e-6, minimum=" >= 0"),
        ],
    ),
    "simple_gate_mean": Op(
        lambda n, c, h, w, k: {"x": (n, 2 * c, h, w), "out": (n, c, h, w), "mean": (n, c)},
        outputs=("out", "mean"),
        workspace=True,
        misuse=[
            *_misuse_of_picture("x", "N, 2 * C, H, W", 8),
            ({"x": {"shape": (2, 3, 3, 5)}}, ValueError,
             "argument 'x' has 3 channels; expected an even number, two halves to be multiplied"),
            *_misuse_of_like("out", "x", why=HALF),
            _dtype("out", "float16", "float32, the dtype of 'x'"),
            *_overlap("out", "x"),
            *_misuse_of_matrix("mean", 2, 4, "N, C", "x", parameter=False),
            *_overlap("mean", "x"),
            *_overlap("mean", "out"),
        ],
    ),
}  # fmt: skip


def view(tensor: Tensor | None, **changes: Any) -> Any:
    if tensor is None:
        return None
    fields = {
        "data_ptr": tensor.data_ptr() + changes.pop("offset", 0),
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": "cpu",
    }
    return native.TensorView(**{**fields, **changes})


def tensors_of(
    op: str,
    n: int = 2,
    c: int = 4,
    h: int = 3,
    w: int = 5,
    k: int = 3,
    *,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> dict[str, Tensor]:
    """Random tensors; ``dtype`` is that of pictures, all others are float32."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in OPS[op].shapes(n, c, h, w, k).items():
        tensor = torch.randn(shape, generator=generator)
        picture = tensor.ndim == 4
        tensors[name] = tensor.to(dtype, memory_format=layout) if picture else tensor
    return tensors


def run(op: str, tensors: dict[str, Tensor | None], **changes: Any) -> None:
    getattr(native, op)(**{name: view(tensor) for name, tensor in tensors.items()}, **changes)


each_op = pytest.mark.parametrize("op", OPS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=["nchw", "nhwc"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


# ---- results ----


@pytest.mark.slow
@each_dtype
@each_layout
@pytest.mark.parametrize(
    ("op", "source", "target"), [(name, *pair) for name, op in OPS.items() for pair in op.shared]
)
def test_in_place(
    op: str, source: str, target: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """The bits of a result on an input are those of one in memory of its own."""
    for shape in [(2, 4, 9, 31), (2, 4, 9, 30), (2, 700, 5, 3), (1, 16, 800, 801)]:
        tensors = tensors_of(op, *shape, dtype=dtype, layout=layout)
        if source == "cell" and shape[-1] % 2:  # a cell may be wider than its gates
            tensors |= {name: tensors[name].float() for name in (source, target)}
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        run(op, tensors)
        for name in tensors.keys() - OPS[op].outputs:
            assert torch.equal(tensors[name], kept[name])
        again = kept | {target: kept[source]}
        run(op, again)
        assert all(torch.equal(again[name], tensors[name]) for name in OPS[op].outputs)


@pytest.mark.slow
@each_dtype
@each_layout
@each_op
def test_outputs_that_pass_the_caches(
    op: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """Outputs of 32 MiB and more are stored around the caches: the results of single images."""
    images = 9 if dtype == torch.float32 else 17
    tensors = tensors_of(op, images, 16, 255, 259, dtype=dtype, layout=layout)
    assert tensors[OPS[op].outputs[0]].nbytes >= 32 << 20
    run(op, tensors)
    for image in (0, images - 1):
        alone = {
            name: tensor[image : image + 1].clone(memory_format=torch.preserve_format)
            if len(tensor) == images
            else tensor
            for name, tensor in tensors.items()
        }
        for name in OPS[op].outputs:
            alone[name].fill_(77.0)
        run(op, alone)
        for name in OPS[op].outputs:
            assert torch.equal(alone[name], tensors[name][image : image + 1])


@each_layout
@each_op
def test_threads_do_not_change_bits(op: str, layout: torch.memory_format) -> None:
    tensors = tensors_of(op, 1, 4, 700, 801, layout=layout)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            if native.build_info()["openmp"]:
                assert native.get_num_threads() == threads
            run(op, tensors)
            results.append([tensors[name].clone() for name in OPS[op].outputs])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


# ---- misuse: one line that names the op and the argument, never a crash ----


@pytest.mark.parametrize(
    ("op", "changes", "kind", "message"),
    [
        pytest.param(name, *each, id=f"{name}-{number}")
        for name, op in OPS.items()
        for number, each in enumerate(op.misuse)
    ],
)
def test_misuse(op: str, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    tensors = tensors_of(op)
    arguments = {}
    for name, tensor in tensors.items():
        change = changes.get(name, {})
        if change is None:
            arguments[name] = None
        elif "onto" in change:
            other, offset = change["onto"]
            arguments[name] = view(tensor, data_ptr=tensors[other].data_ptr() + offset)
        else:
            arguments[name] = view(tensor, **change)
    attributes = {name: value for name, value in changes.items() if name not in tensors}
    with pytest.raises(kind) as caught:
        getattr(native, op)(**arguments, **attributes)
    assert str(caught.value) == f"{op}: {message}"


@each_op
def test_none_is_no_tensor(op: str) -> None:
    tensors = tensors_of(op)
    for name in tensors.keys() - OPS[op].optional:
        with pytest.raises(TypeError):
            run(op, tensors | {name: None})
    run(op, tensors | dict.fromkeys(OPS[op].optional))


def test_misuse_of_views() -> None:
    with pytest.raises(ValueError, match="'shape' has 6 dimensions; expected at most 5"):
        native.TensorView(0, [1] * 6, [1] * 6, "float32")
    with pytest.raises(ValueError, match="'strides' has length 1; expected 2"):
        native.TensorView(0, [1, 1], [1], "float32")
    for wrong in (-1, 2**80, "x", None):
        with pytest.raises(TypeError):
            native.TensorView(wrong, [1], [1], "float32")


@each_op
def test_workspace(op: str) -> None:
    tensors = tensors_of(op)
    first, *_ = tensors.values()
    size = getattr(native, f"{op}_workspace_size")
    assert size(view(first)) == 0
    needed = size(view(first, device="cuda", device_index=0))
    assert (needed > 0) == OPS[op].workspace
    for wrong, message in [
        (torch.zeros(4), "argument 'workspace' has dtype float32; expected uint8"),
        (torch.zeros(2, 2, dtype=torch.uint8), "argument 'workspace' is not a contiguous vector"),
        (first.view(torch.uint8).flatten(), "argument 'workspace' overlaps"),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"{op}: {message}"):
            run(op, tensors, workspace=view(wrong))
    if not OPS[op].workspace:
        return
    with pytest.raises(ValueError, match=f"{op}: argument '.*' has 2 dimensions"):
        size(view(torch.zeros(2, 2)))
    if not native.build_info()["cuda"]:
        return
    on_gpu = {name: view(tensor, device="cuda", device_index=0) for name, tensor in tensors.items()}
    on_gpu |= {"sums": None} if "sums" in on_gpu else {}
    room = torch.zeros(needed + 17, dtype=torch.uint8)
    skew = -room.data_ptr() % 16

    def given(begin: int, count: int) -> Any:
        part = room[skew + begin :][:count]
        return view(part, device="cuda", device_index=0)

    for workspace, message in [
        (None, f"has 0 bytes; expected at least {needed}"),
        (given(0, needed - 1), f"has {needed - 1} bytes; expected at least {needed}"),
        (given(1, needed), "is null or misaligned; expected an address that is a multiple of 16"),
    ]:
        with pytest.raises(ValueError, match=f"{op}: argument 'workspace' {message}"):
            getattr(native, op)(**on_gpu, workspace=workspace)


@each_op
def test_cuda_left_out(op: str) -> None:
    if native.build_info()["cuda"]:
        pytest.skip("this build has CUDA kernels")
    views = {
        name: view(tensor, device="cuda", device_index=0) for name, tensor in tensors_of(op).items()
    }
    with pytest.raises(native.NotCompiledError, match=f"{op}: .* no CUDA kernels; .* rebuild"):
        getattr(native, op)(**views)


def test_build_info() -> None:
    info = native.build_info()
    assert set(info) == {
        "version", "compiler", "cuda", "cuda_version", "cuda_architectures", "openmp",
        "tensorrt_headers", "ops",
    }  # fmt: skip
    assert set(info["ops"]) == set(OPS)
    assert info["cuda"] == (info["cuda_version"] is not None)
    assert issubclass(native.NotCompiledError, RuntimeError)


@each_op
def test_random_views_never_crash(op: str) -> None:
    """Views of nonsense in a real buffer: an error or a result, no write outside the outputs."""
    rng = np.random.default_rng(0)
    size, guard, results = 1024, 77.0, 0
    names = list(OPS[op].shapes(1, 4, 1, 1, 1))
    room = np.zeros((len(names), size), np.float32)
    outputs = [names.index(name) for name in OPS[op].outputs]
    for _ in range(4000):
        room[outputs] = guard
        n, c, h, w, k = rng.integers(-1, 5, 5).tolist()
        planes = rng.random() < 0.5
        absent = [name for name in OPS[op].optional if rng.random() < 0.5]
        views: list[Any] = []
        written = {}
        for row, (name, shape) in enumerate(OPS[op].shapes(n, c, h, w, k).items()):
            sizes = [max(size, 0) if len(shape) == 1 else size for size in shape]
            if rng.random() < 0.05:
                sizes[rng.integers(len(sizes))] = int(rng.integers(-1, 9))
            if len(sizes) == 4:
                _, own, high, wide = sizes
                dense = [own * high * wide, high * wide, wide, 1]
                strides = dense if planes else [own * high * wide, 1, wide * own, own]
            else:
                strides = [*sizes[1:], 1]
            if rng.random() < 0.1:
                strides = rng.integers(-3, 60, len(sizes)).tolist()
            address = room.ctypes.data + 4 * size * row
            made = native.TensorView(address, sizes, strides, "float32")
            views.append(None if name in absent else made)
            if row in outputs:
                written[row] = int(np.prod(sizes))
        try:
            getattr(native, op)(*views)
        except ValueError as error:
            message, written = str(error), dict.fromkeys(written, 0)
        else:
            message = f"{op}: argument '"
            results += 1
        assert message.startswith(f"{op}: argument '")
        assert "\n" not in message
        for row, count in written.items():
            assert np.all(room[row, count:] == guard)
            assert np.all(room[row, :count] != guard)
    assert results > 100
