"""restorert inspect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.cli.options import add_deploy, add_precision, refuse
from restorert.command_line import number
from restorert.errors import InputError
from restorert.terminal import console, progress_bars

if TYPE_CHECKING:
    from restorert.engine import Sidecar

_PLANNING = ("precision", "deploy", "size", "compute_capability", "kernels")


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    inspect = commands.add_parser(
        "inspect", help="describe an engine, or the memory traffic of a network's plan"
    )
    inspect.add_argument(
        "source", help="engine, checkpoint, ONNX file, or a name from `restorert networks`"
    )
    add_precision(inspect)
    add_deploy(inspect)
    inspect.add_argument("--size", metavar="WxH", help="default: 1280x720")
    inspect.add_argument("--compute-capability", metavar="X.Y", help="GPU to plan for; default 8.9")
    inspect.add_argument(
        "--kernels",
        type=number(int, 0),
        metavar="N",
        help="show the N kernels that move most bytes; default 10",
    )
    inspect.set_defaults(command=run, parser=inspect)


def run(options: argparse.Namespace) -> int:
    """Describe an engine, or plan a network."""
    from restorert.engine.sidecar import check_engine_file, read_sidecar, sidecar_path

    # The .json next to an ONNX file is its calibration, not a sidecar.
    is_onnx = options.source.endswith(".onnx")
    if not is_onnx and sidecar_path(options.source).exists():
        refuse(options, _PLANNING, "with a built engine")
        sidecar = read_sidecar(options.source)
        check_engine_file(options.source, sidecar)
        _print_sidecar(sidecar)
        return 0
    if is_onnx:
        refuse(options, ("precision", "deploy"), "with an ONNX file")
    return _inspect_plan(options)


def _inspect_plan(options: argparse.Namespace) -> int:
    """Plan a network; print the bytes that its kernels move, and the lower bound."""
    from restorert import create_network, list_networks, load_network
    from restorert.backends.tensorrt.build import plan_of
    from restorert.backends.tensorrt.module import planner
    from restorert.engine.profile import parse_size
    from restorert.engine.recipe import BuilderOptions
    from restorert.export import read_metadata
    from restorert.export.onnx_file import spec_of
    from restorert.networks.counts import count_bytes, count_macs

    height, width = parse_size(options.size or "1280x720")
    capability = options.compute_capability or "8.9"
    precision = options.precision or "fp16"
    source: Any
    if options.source in list_networks():
        source = create_network(options.source)
        spec = source.spec
    elif options.source.endswith(".onnx"):
        source = Path(options.source)
        metadata = read_metadata(source)
        spec, precision = spec_of(metadata), str(metadata.get("precision"))
    elif Path(options.source).exists():
        source = load_network(options.source)
        spec = source.spec
    else:
        raise InputError(f"{options.source} is neither file nor network; see: restorert networks")
    if not isinstance(source, Path) and options.deploy:
        deployed = source.deploy(planner()).deployed
        print(f"deploy form: {', '.join(deployed) or 'as published'}")
    shape = spec.shape_for(height, width)
    with progress_bars() as progress:
        plan = plan_of(
            source,
            shape,
            precision=precision,
            options=BuilderOptions(compute_capabilities=(capability,)),
            progress=progress,
            deploy=options.deploy,
        )
    console().print(
        f"{spec.name}, {precision}, {shape[3]}x{shape[2]}, compute capability {capability}"
    )
    _print_kinds({kind: list(pair) for kind, pair in plan.by_kind().items()})
    if not isinstance(source, Path):
        floor = count_bytes(source, shape, 4 if precision == "fp32" else 2)
        macs = count_macs(source, shape)
        print(
            f"floor: {floor.products / 1e9:.2f} GB with everything fused into the convolutions, "
            f"{floor.with_global_passes / 1e9:.2f} GB with the passes of global pools and norms; "
            f"{macs.exact / 1e9:.0f} GMAC"
        )
    largest = sorted(plan.kernels, key=lambda kernel: -(kernel.total_bytes or 0))
    for kernel in largest[: 10 if options.kernels is None else options.kernels]:
        size = f"{kernel.total_bytes / 1e6:9.1f} MB" if kernel.total_bytes is not None else "?"
        print(f"{size}  {kernel.kind:14s}  {kernel.name}  <- {', '.join(kernel.onnx[:3])}")
    return 0


def _print_kinds(kinds: dict[str, list[int | None]]) -> None:
    """Print one line per kind: number of kernels, and bytes."""
    counts, sizes = zip(*kinds.values(), strict=True)
    total = None if None in sizes else sum(sizes)
    rows: dict[str, list[Any]] = {**kinds, "all": [sum(counts), total]}
    for kind, (count, size) in rows.items():
        moved = "" if size is None else f"{size / 1e9:10.3f} GB"
        print(f"{kind:14s} {count:5d} kernels {moved}".rstrip())


def _print_sidecar(sidecar: Sidecar) -> None:
    from restorert.engine.device import short_version

    targets = ", ".join(sidecar.targets)
    device = f"compute capability {targets}" if targets else f"{sidecar.device.get('name')}"
    lines = {
        "network": sidecar.network.get("network"),
        "runner": f"{sidecar.runner} {short_version(sidecar.runner_version)}",
        "precision": f"{sidecar.precision} asked, {sidecar.precision_ran} runs",
        "shapes": str(sidecar.profile),
        "device": device,
        "size": f"{sidecar.engine_bytes / 1e6:.1f} MB, built in {sidecar.build_seconds:.1f} s",
        "weights": ", ".join(filter(None, (sidecar.weights_sha256[:16], sidecar.weights_from)))
        or "from its ONNX file",
        "rebuild": sidecar.rebuild or "from its network: the weights are not in a file",
    }
    for name, text in lines.items():
        print(f"{name:10s} {text}")
    if sidecar.precisions:
        print(sidecar.precision_shares())
    if sidecar.plan:
        _print_kinds(sidecar.plan)
