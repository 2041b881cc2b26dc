"""Kernels and bytes of TensorRT plans, for machines without a GPU.

    python benchmarks/plan.py --model hinet-rain hinet-gopro
    python benchmarks/plan.py --all --json benchmarks/results/plan/720p-fp16-sm89.json

TensorRT-RTX lists every kernel of a finished plan with what it reads and writes. A kernel moves at
least that; the floor is what the network must move with everything fused. With --check it fails
where a plan moves over 2 % more than the recorded one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import report
import restorert as rr
from restorert.backends.tensorrt.build import plan_of
from restorert.backends.tensorrt.module import load_module
from restorert.engine.profile import parse_size
from restorert.engine.recipe import BuilderOptions
from restorert.errors import InputError
from restorert.networks.counts import count_bytes, count_macs

RECORDED = Path(__file__).parent / "results/plan/720p-fp16-sm89.json"
# One variant of each architecture; the others of its family have the same layers.
MODELS = (
    "hinet-gopro",
    "hinet-rain",
    "mprnet-deblur",
    "memorynet",
    "srn-color",
    "srn-lstm",
    "nafnet-dcpt",
    "restormer-dcpt",
    "promptir-dcpt",
    "swinir-dcpt",
)
# An H200's fp16 tensor cores and its measured copy, to turn floors into times.
FLOPS, COPY = 790e12, 4.3e12


def measure(
    name: str,
    height: int = 720,
    width: int = 1280,
    precision: str = "fp16",
    target: str = "8.9",
    *,
    deploy: bool = True,
) -> dict[str, Any]:
    """Kernels and bytes of one network's plan, by kind, beside its floors."""
    network = rr.create_network(name)
    shape = network.spec.shape_for(height, width)
    options = BuilderOptions(compute_capabilities=(target,))
    plan = plan_of(network, shape, precision=precision, options=options, deploy=deploy)
    floor = count_bytes(network, shape, 4 if precision == "fp32" else 2)
    return {
        "network": name,
        "deployed": list(network.deploy("tensorrt_rtx").deployed) if deploy else [],
        "kernels": len(plan.kernels),
        "bytes": plan.total_bytes,
        "by_kind": {kind: list(pair) for kind, pair in plan.by_kind().items()},
        "floor_bytes": floor.products,
        "floor_bytes_with_global_passes": floor.with_global_passes,
        "gmac": count_macs(network, shape).exact / 1e9,
    }


def recorded() -> dict[str, dict[str, Any]]:
    """Network -> row of the plans kept in benchmarks/results."""
    rows = json.loads(RECORDED.read_text(encoding="utf-8"))["rows"]
    return {row["network"]: row for row in rows}


def _known(options: argparse.Namespace, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The recorded rows of ``names``."""
    if (options.size, options.precision, options.compute_capability) != ("1280x720", "fp16", "8.9"):
        raise InputError("recorded plans are fp16, 1280x720, for compute capability 8.9")
    known = recorded()
    for name in names:
        rr.network_spec(name)
        if name not in known:
            raise InputError(f"{name} is not recorded in {RECORDED}")
    return known


def _has_grown(row: dict[str, Any], known: dict[str, dict[str, Any]]) -> bool:
    if row["network"] not in known:
        return False
    before = known[row["network"]]["bytes"]
    print(f"{row['network']}: {row['bytes'] / 1e9:.2f} GB, recorded {before / 1e9:.2f}")
    return bool(row["bytes"] > 1.02 * before)


def main() -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--model", nargs="+", help="names from `restorert networks`")
    parser.add_argument("--all", action="store_true", help=f"{', '.join(MODELS)}")
    parser.add_argument("--no-deploy", dest="deploy", action="store_false")
    parser.add_argument("--size", default="1280x720", metavar="WxH")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp16")
    parser.add_argument("--compute-capability", default="8.9", metavar="X.Y")
    parser.add_argument("--check", action="store_true", help="compare with the recorded plans")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    return report.main(parser, run)


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)
    height, width = parse_size(options.size)
    names = MODELS if options.all or not options.model else options.model
    known = _known(options, names) if options.check else {}
    rows = [
        measure(
            name,
            height,
            width,
            options.precision,
            options.compute_capability,
            deploy=options.deploy,
        )
        for name in track(names, "planning", console=console, transient=True)
    ]
    _print(console, rows)
    if options.json:
        settings = {
            "size": f"{width}x{height}",
            "precision": options.precision,
            "compute_capability": options.compute_capability,
            "tensorrt_rtx": load_module("tensorrt_rtx").__version__,
            "torch": torch.__version__,
        }
        report.write_json(options.json, "plan", settings, rows)
    grown = [row["network"] for row in rows if _has_grown(row, known)]
    if grown:
        raise InputError(
            f"plans grew by more than 2 %: {', '.join(grown)}; where that is meant, record "
            f"them: python benchmarks/plan.py --all --json {RECORDED}"
        )
    return 0


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(
        title="GB that a plan's kernels read and write, by kind; floors; ms on an H200 "
        f"at {FLOPS / 1e12:.0f} TFLOP/s and {COPY / 1e12:.1f} TB/s"
    )
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["by_kind"]))
    headings = ("network", "kernels", "GB", *kinds, "floor", "and passes", "ms FLOP", "ms GB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for row in rows:
        table.add_row(
            row["network"],
            str(row["kernels"]),
            f"{row['bytes'] / 1e9:.2f}",
            *(
                f"{row['by_kind'][kind][1] / 1e9:.2f}" if kind in row["by_kind"] else "-"
                for kind in kinds
            ),
            f"{row['floor_bytes'] / 1e9:.2f}",
            f"{row['floor_bytes_with_global_passes'] / 1e9:.2f}",
            f"{row['gmac'] * 2e12 / FLOPS:.2f}",
            f"{row['bytes'] * 1e3 / COPY:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
