"""Time every fused op beside eager torch and torch.compile of the same formula.

    python benchmarks/ops.py [--op NAME] [--dtype fp32,bf16] [--layout nchw,nhwc] [--compile]

Every candidate runs in this one process, in turn. The share is bytes that the op must move over the
time it took, as a share of the copy bandwidth measured here on tensors of the same size. The error
is against the float64 reference. On a CPU freed memory is kept for the next output, as a pipeline's
allocator would: fresh pages cost more than most of these ops.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import report
from restorert.command_line import number
from restorert.errors import InputError
from restorert.ops import SPECS, OpCase, OpSpec
from restorert.testing import time_side_by_side
from restorert.testing.op_runner import error_to_float64, in_layout

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def main() -> int:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--op", help=f"comma-separated, of {', '.join(spec.name for spec in SPECS)}; default: all"
    )
    parser.add_argument("--case", help="only benchmark cases whose text contains this: 720x1280")
    parser.add_argument("--dtype", help="comma-separated; default: fp32,bf16, on a GPU fp32,fp16")
    parser.add_argument("--layout", default="nchw,nhwc", help="comma-separated: nchw, nhwc")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    parser.add_argument("--repeats", type=number(int, 1, 10**6), default=20)
    parser.add_argument(
        "--fresh-memory",
        action="store_true",
        help="on a CPU, outputs in fresh pages",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    return report.main(parser, run)


def _choose(text: str, known: dict[str, Any], what: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise InputError(f"--{what} knows {', '.join(known)}, not {name!r}")
    return names


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    default = "fp32,fp16,bf16" if device.type == "cuda" else "fp32,bf16"
    dtypes = _choose(options.dtype or default, DTYPES, "dtype")
    layouts = _choose(options.layout, LAYOUTS, "layout")
    known = {spec.name: spec for spec in SPECS}
    specs = [known[name] for name in _choose(options.op or ",".join(known), known, "op")]
    cases = {
        spec.name: [case for case in spec.benchmark_cases if (options.case or "") in str(case)]
        for spec in specs
    }
    if not any(cases.values()):
        texts = dict.fromkeys(str(case) for spec in specs for case in spec.benchmark_cases)
        raise InputError(f"--case {options.case} is in none of {'; '.join(texts)}")
    kept = device.type == "cpu" and not options.fresh_memory and _keep_freed_memory()
    report.print_header(console)
    rows: list[dict[str, Any]] = []
    for spec in specs:
        of_spec = [
            _measure(spec, case, dtype, layout, device, options)
            for case in cases[spec.name]
            for dtype in dtypes
            for layout in layouts
        ]
        if of_spec:
            _print(console, spec, of_spec)  # at once: all of them take a while
        rows += of_spec
    if options.json:
        settings = {
            "repeats": options.repeats,
            "l2": "cold" if device.type == "cuda" else "warm",
            "memory": "kept" if kept else "as allocated",
        }
        report.write_json(options.json, "ops", settings, rows)
        console.print(f"written: {options.json}", highlight=False)
    return 0


def _keep_freed_memory() -> bool:
    """Have the C library's allocator return nothing to the kernel; whether it can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    trim_threshold, mmap_max = -1, -4
    most = 2**31 - 1
    return mallopt is not None and bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, most))


def _measure(
    spec: OpSpec,
    case: OpCase,
    dtype: str,
    layout: str,
    device: torch.device,
    options: argparse.Namespace,
) -> dict[str, Any]:
    inputs = in_layout(spec.make_inputs(case, DTYPES[dtype], device, 0), LAYOUTS[layout])
    main_tensor = next(v for v in inputs.values() if isinstance(v, Tensor))
    copy = torch.empty_like(main_tensor)
    calls: dict[str, Any] = {
        "fused": partial(spec.op, **inputs),
        "eager": partial(spec.eager, **inputs),
        "copy": partial(copy.copy_, main_tensor),
    }
    if options.compile:
        calls["compile"] = partial(torch.compile(spec.eager, dynamic=False), **inputs)
    with torch.inference_mode():
        timings = time_side_by_side(calls, device=device, repeats=options.repeats)
        error = error_to_float64(spec, spec.op, inputs)
    element = main_tensor.element_size()
    bandwidth = 2 * main_tensor.numel() * element / timings["copy"].median
    moved = spec.bytes_moved(case, element) / timings["fused"].median
    row = {
        "op": spec.name,
        "case": str(case),
        "dtype": dtype,
        "layout": layout,
        "error": error,
        "gb_per_s": moved / 1e9,
        "copy_gb_per_s": bandwidth / 1e9,
        "share_of_copy": moved / bandwidth,
        "times_faster_than_eager": timings["eager"].median / timings["fused"].median,
    }
    if options.compile:
        row["times_faster_than_compile"] = timings["compile"].median / timings["fused"].median
    return row | {name: timing.to_json() for name, timing in timings.items()}


def _print(console: Console, spec: OpSpec, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"{spec.name}: medians, in turn in one process")
    for column in (
        "case",
        "dtype",
        "layout",
        "faster than eager",
        "than compile",
        "fused ms",
        "eager ms",
        "GB/s",
        "share of copy",
        "error",
    ):
        table.add_column(column, justify="left" if column in ("case", "dtype") else "right")
    for row in rows:
        compiled = row.get("times_faster_than_compile")
        table.add_row(
            row["case"],
            row["dtype"],
            row["layout"],
            f"{row['times_faster_than_eager']:.2f}x",
            f"{compiled:.2f}x" if compiled else "-",
            f"{row['fused']['median_ms']:.3f}",
            f"{row['eager']['median_ms']:.3f}",
            f"{row['gb_per_s']:.1f}",
            f"{row['share_of_copy']:.0%}",
            f"{row['error']:.1e}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
