"""Every op's CUDA kernels, run by the emulator on the CPU, against the float64 reference.

The emulator proves index arithmetic, bounds, barriers and the merging of partial results on
machines without a GPU. Every buffer ends where a page that may not be touched begins, so a kernel
that reads or writes behind one ends the process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from restorert.ops import SPECS, OpCase, OpSpec
from restorert.testing import max_error
from restorert.testing.op_runner import every_case, in_layout, results

PAGE = mmap.PAGESIZE
# Elements of a case: fibers are slow. Half precision adds conversions and wider vectors only.
LARGEST = {torch.float32: 200_000, torch.float16: 40_000, torch.bfloat16: 40_000}
ORDERS = {"forward": {}, "backward": {"REVERSE": "1", "MAX_BLOCKS": "7"}}
CASES = [
    pytest.param(
        order,
        spec,
        *each,
        id=f"{order}-{spec.name}-{each[0]}-{each[1]}-{each[2]}".replace("torch.", ""),
    )
    for spec in SPECS
    for each in every_case(spec)
    for order in ORDERS
    if torch.Size(each[0].shape).numel() <= LARGEST[each[1]]
    and (order == "forward" or each[1] == torch.float32)
]


@pytest.fixture(scope="module")
def emulated(native_build: Path) -> ModuleType:
    (path,) = (native_build / "tests/native/emulated").glob("_native*.so")
    specification = importlib.util.spec_from_file_location("_native", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Guarded:
    """Memory that ends at a page of no access, aligned to 16 bytes unless ``shift`` says else."""

    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def empty(self, like: Tensor, shift: int = 0) -> Tensor:
        """A tensor of the same shape and strides (dense), filled with bytes 0xff: NaN."""
        size = like.numel() * like.element_size()
        room = -(-(size + 32) // PAGE) * PAGE
        memory = mmap.mmap(-1, room + PAGE)
        self._maps.append(memory)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        assert self._libc.mprotect(ctypes.c_void_p(address + room), PAGE, 0) == 0
        begin = (room - size) // 16 * 16 - shift * like.element_size()
        raw = (
            torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=begin)
            if size
            else (torch.empty(0, dtype=torch.uint8))
        )
        raw.fill_(255)
        return raw.view(like.dtype).as_strided(like.shape, like.stride())

    def copy(self, tensor: Tensor, shift: int = 0) -> Tensor:
        return self.empty(tensor, shift).copy_(tensor)


def _arguments(spec: OpSpec, inputs: dict[str, Any]) -> list[tuple[bool, Any]]:
    """(is a tensor, value) in the schema's order, defaults filled in."""
    schema = getattr(torch.ops.restorert, spec.name).default._schema
    return [
        ("Tensor" in str(a.type), inputs.get(a.name, a.default_value)) for a in schema.arguments
    ]


def run_emulated(
    module: ModuleType, spec: OpSpec, inputs: dict[str, Any], shift: int = 0
) -> tuple[Tensor, ...]:
    """The op's CUDA kernels on CPU memory that is passed off as a GPU's."""
    guarded = Guarded()

    def view(tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        dtype = str(tensor.dtype).removeprefix("torch.")
        return module.TensorView(
            tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), dtype, "cuda", 0
        )

    arguments = _arguments(spec, inputs)
    tensors = [value for is_tensor, value in arguments if is_tensor]
    placed = [None if t is None else guarded.copy(t, shift) for t in tensors]
    outputs = [guarded.empty(out, shift) for out in results(spec.fake(**inputs))]
    size = getattr(module, f"{spec.name}_workspace_size")(view(placed[0]))
    workspace = guarded.empty(torch.empty(size, dtype=torch.uint8))
    getattr(module, spec.name)(
        *map(view, (*placed, *outputs)),
        *(value for is_tensor, value in arguments if not is_tensor),
        workspace=view(workspace),
        stream=0,
    )
    for before, after in zip(tensors, placed, strict=True):
        assert before is None or torch.equal(before.nan_to_num(), after.nan_to_num())
    return tuple(out.clone() for out in outputs)


def _error(spec: OpSpec, found: tuple[Tensor, ...], inputs: dict[str, Any]) -> float:
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    expected = results(spec.reference(**wide))
    return max(max_error(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize(("order", "spec", "case", "dtype", "layout"), CASES)
def test_cuda_kernels(
    emulated: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    order: str,
    spec: OpSpec,
    case: OpCase,
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> None:
    for name, value in ORDERS[order].items():
        monkeypatch.setenv(f"RESTORERT_EMULATOR_{name}", value)
    inputs = in_layout(spec.make_inputs(case, dtype, torch.device("cpu"), 0), layout)
    for shift in (0, 1):  # 16-byte vectors, and storage that only elements can be read from
        found = run_emulated(emulated, spec, inputs, shift)
        assert _error(spec, found, inputs) <= spec.tolerances[dtype]


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
def test_results_do_not_depend_on_the_order_of_blocks(
    emulated: ModuleType, monkeypatch: pytest.MonkeyPatch, spec: OpSpec
) -> None:
    inputs = spec.make_inputs(spec.cases[2], torch.float32, torch.device("cpu"), 0)
    first = run_emulated(emulated, spec, inputs)
    monkeypatch.setenv("RESTORERT_EMULATOR_REVERSE", "1")
    monkeypatch.setenv("RESTORERT_EMULATOR_MAX_BLOCKS", "3")
    second = run_emulated(emulated, spec, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
