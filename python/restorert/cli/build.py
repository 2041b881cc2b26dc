"""restorert build, restorert calibrate and restorert export."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.backends import BACKENDS, Backend
from restorert.cli.options import (
    PICTURES,
    add_deploy,
    add_network,
    add_pictures,
    add_precision,
    add_runner,
    check_outputs,
    check_pictures,
    exclude,
    given,
    network_of,
    path,
    refuse,
)
from restorert.cli.words import CURES
from restorert.command_line import number
from restorert.engine.recipe import FLAGS, RANGES
from restorert.errors import InputError, QualityError
from restorert.terminal import console, progress_bars

if TYPE_CHECKING:
    from restorert.engine import Recipe, ShapeProfile
    from restorert.engine.recipe import BuilderOptions
    from restorert.networks import RestorationNetwork
    from restorert.quantize import Patches, QuantizationReport


def add_to(commands: Any) -> None:
    """Add the commands to the parser."""
    build = commands.add_parser("build", help="build an engine file")
    add_network(build)
    build.add_argument("--recipe", type=path, help="a TOML recipe, such as engines/hinet.toml")
    build.add_argument("--onnx", type=path, help="an ONNX file from `restorert export`")
    add_precision(build, "int8")
    build.add_argument(
        "--images",
        type=path,
        metavar="DIR",
        help="pictures to calibrate int8 or to measure on",
    )
    add_pictures(build)
    add_runner(build, in_memory=False)
    add_deploy(build)
    for name, text in (
        ("shapes", "accept this shape only"),
        ("minShapes", "smallest shape"),
        ("optShapes", "shape to optimise for"),
        ("maxShapes", "largest shape"),
    ):
        build.add_argument(f"--{name}", metavar="[input:]NxCxHxW", help=text)
    build.add_argument(
        "--compute-capability",
        dest="compute_capabilities",
        action="append",
        default=[],
        metavar="X.Y",
        help="GPU to build for with TensorRT-RTX; may be repeated",
    )
    build.add_argument(
        "--optimization-level",
        type=number(int, *RANGES["optimization_level"]),
        metavar="0-5",
        help="TensorRT's: 0 builds fastest, 5 gives the fastest engine",
    )
    build.add_argument(
        "--workspace",
        dest="workspace_mib",
        type=number(int, *RANGES["workspace_mib"]),
        metavar="MIB",
        help="maximum scratch memory of a TensorRT layer",
    )
    build.add_argument("-o", "--output", type=path, help="engine file; default: one in the cache")
    build.set_defaults(command=run_build, parser=build)

    calibrate = commands.add_parser(
        "calibrate", help="write a network as an INT8 ONNX file, calibrated on pictures"
    )
    add_network(calibrate)
    calibrate.add_argument(
        "--images", type=path, metavar="DIR", help="typical input pictures of the network"
    )
    add_pictures(calibrate)
    calibrate.add_argument(
        "--cache", type=path, metavar="FILE.json", help="scales of an earlier run, possibly edited"
    )
    calibrate.add_argument(
        "--sensitivity", action="store_true", help="rank the layers by the loss that each causes"
    )
    builders = [backend.name for backend in BACKENDS if backend.takes == "onnx"]
    calibrate.add_argument(
        "--runner",
        default=builders[0],
        choices=builders,
        help=f"runner that the deploy form is for; default {builders[0]}",
    )
    add_deploy(calibrate)
    calibrate.add_argument("-o", "--output", type=path, required=True, metavar="FILE.onnx")
    calibrate.set_defaults(command=run_calibrate, parser=calibrate)

    export = commands.add_parser("export", help="write a network as an ONNX file")
    add_network(export)
    add_precision(export)
    add_deploy(export)
    export.add_argument("--shapes", metavar="NxCxHxW", help="fixed shape; default: any shape")
    export.add_argument("-o", "--output", type=path, required=True)
    export.set_defaults(command=run_export, parser=export)


def run_build(options: argparse.Namespace) -> int:
    """Build an engine file and print its path."""
    from restorert import build_engine_file, network_spec, read_recipe
    from restorert.backends import choose
    from restorert.engine.sidecar import read_sidecar
    from restorert.export.onnx_file import OnnxFile, spec_of

    recipe = read_recipe(options.recipe) if options.recipe is not None else None
    profile = profile_of(options) or (recipe.profile if recipe else None)
    precision = options.precision or (recipe.precision if recipe else "fp32")
    builder = _builder_options(options, recipe)
    check_pictures(options)
    backend = choose(options.runner, to_run=False)
    unheeded = {f.name for f in dataclasses.fields(builder)} - set(backend.options)
    refuse(options, sorted(unheeded), f"with {backend.name}")
    if options.output is not None:
        check_outputs(options, "", ".json")
    network: Any
    if options.onnx is not None:
        exclude(options, "onnx", ("weights", "model", "images"))
        refuse(options, ("deploy", *PICTURES), "with --onnx")
        network = OnnxFile.read(options.onnx)
        spec = spec_of(network.metadata)
        if options.precision is None and recipe is None:
            precision = str(network.metadata.get("precision"))
    else:
        _check_calibration(options, precision, recipe)
        network = network_of(options, default=recipe.network if recipe else None)
        spec = network.spec
    if recipe is not None and spec.family != network_spec(recipe.network).family:
        raise InputError(
            f"{options.recipe} is a recipe of {recipe.network}, the network is {spec.name}"
        )
    if options.runner not in ("auto", backend.name):
        console().print(
            f"no {options.runner} here (see: restorert doctor): built by {backend.name}"
        )
    if options.images is not None:
        limits = recipe.limits if recipe else {}
        network = _on_pictures(options, network, precision, backend, limits)
    with progress_bars() as progress:
        path = build_engine_file(
            network,
            options.output,
            precision=precision,
            profile=profile,
            runner=options.runner,
            options=builder,
            progress=progress,
            deploy=options.deploy,
        )
    console().print(read_sidecar(path).summary())
    print(path)
    return 0


def profile_of(options: argparse.Namespace) -> ShapeProfile | None:
    """The profile of --shapes, or of --minShapes, --optShapes and --maxShapes."""
    from restorert.engine.profile import ShapeProfile, parse_shape

    bounds = [options.minShapes, options.optShapes, options.maxShapes]
    if options.shapes is not None:
        if any(bounds):
            raise InputError("--shapes excludes --minShapes, --optShapes and --maxShapes")
        return ShapeProfile.fixed(parse_shape(options.shapes))
    if not any(bounds):
        return None
    if not all(bounds):
        raise InputError("--minShapes, --optShapes and --maxShapes go together")
    return ShapeProfile(*map(parse_shape, bounds))


def _builder_options(options: argparse.Namespace, recipe: Recipe | None) -> BuilderOptions:
    """The recipe's options, overridden by the flags."""
    from restorert.engine.recipe import BuilderOptions

    changes = {name: getattr(options, name) for name in given(options, FLAGS)}
    if "compute_capabilities" in changes:
        changes["compute_capabilities"] = tuple(changes["compute_capabilities"])
    return dataclasses.replace(recipe.options if recipe else BuilderOptions(), **changes)


def _check_calibration(options: argparse.Namespace, precision: str, recipe: Recipe | None) -> None:
    """Reject int8 without a calibration or pictures, and options that need pictures."""
    from restorert.weights import shipped_calibrations

    if precision != "int8":
        refuse(options, ("method", "percentile", "keep_fp16"), f"with {precision}")
        if options.images is None:
            refuse(options, ("patches", "conditions", "limit"), "without --images")
    elif options.images is None:
        name = options.model or (recipe.network if recipe else None)
        if options.weights is not None or name not in shipped_calibrations():
            raise InputError(
                "int8 needs pictures to calibrate on with --images DIR, or a file from "
                "`restorert calibrate` with --onnx FILE"
            )
        refuse(options, PICTURES, "without --images")


def _on_pictures(
    options: argparse.Namespace,
    network: RestorationNetwork,
    precision: str,
    backend: Backend,
    limits: dict[str, float],
) -> RestorationNetwork | Path:
    """Calibrate int8 on --images, or print and check the loss of another precision on them."""
    from restorert.quantize import check_quality, quality_of, quality_table
    from restorert.runtime.onnx_cache import calibrated_path

    patches = _patches(options, network)
    ran = precision if precision == "int8" else backend.arithmetic(precision)
    limit = options.limit if options.limit is not None else limits.get(ran)
    if precision != "int8":
        shown = precision if ran == precision else f"{precision}, run as {ran} by {backend.name}"
        qualities = quality_of(network, ran, patches)
        console().print("\n".join([f"{shown}:", *quality_table(qualities)]))
        check_quality(qualities, ran, limit)
        return network
    arguments = {**_quantization(options), "limit": limit, "runner": backend.name}
    if options.output is None:
        target = calibrated_path(network, patches, **arguments)
    else:
        check_outputs(options, ".onnx", ".onnx.json")
        target = Path(f"{options.output}.onnx")
    return _quantize(network, target, patches, **arguments).path


def run_calibrate(options: argparse.Namespace) -> int:
    """Write an INT8 ONNX file and print its path."""
    from restorert import read_calibration

    check_pictures(options)
    if options.cache is not None:
        refuse(options, ("method", "percentile"), "with --cache")
        if options.images is None:
            refuse(options, ("patches", "conditions", "limit"), "without --images")
    elif options.images is None:
        raise InputError("give pictures with --images DIR or an earlier calibration with --cache")
    check_outputs(options, "")
    _check_onnx_name(options.output)
    calibration = read_calibration(options.cache) if options.cache is not None else None
    network = network_of(options)
    report = _quantize(
        network,
        options.output,
        _patches(options, network) if options.images is not None else None,
        calibration=calibration,
        sensitivity=options.sensitivity,
        limit=options.limit,
        runner=options.runner,
        **_quantization(options),
    )
    for name, harm in report.sensitivity.items():
        print(f"{harm:.6f} {name}")
    print(options.output)
    return 0


def _quantization(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `quantize_network` that were given."""
    found = {name: getattr(options, name) for name in given(options, ("method", "percentile"))}
    keep = options.keep_fp16
    return {**found, "keep_fp16": "auto" if keep == ["auto"] else keep, "deploy": options.deploy}


def _quantize(
    network: RestorationNetwork, target: Path, patches: Patches | None, **arguments: Any
) -> QuantizationReport:
    """Write an INT8 ONNX file and its calibration, and print the loss."""
    from restorert import quantize_network

    try:
        with progress_bars() as progress:
            report = quantize_network(
                network, target, patches, progress=progress, save_calibration=True, **arguments
            )
    except QualityError as error:
        if error.saved is None:
            raise
        raise QualityError(
            f"{error.worded(CURES)}; the calibration is kept in {error.saved}: "
            f"restorert calibrate --cache {error.saved} uses it"
        ) from None
    console().print(str(report))
    return report


def _patches(options: argparse.Namespace, network: RestorationNetwork) -> Patches:
    """Patches from the pictures in --images."""
    from restorert import read_patches

    conditions = [name.strip() for text in options.conditions for name in text.split(",")]
    return read_patches(
        options.images, network.spec, options.patches or 64, conditions=conditions or None
    )


def _check_onnx_name(path: Path) -> None:
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path} will be an ONNX file: give it a name that ends in .onnx")


def run_export(options: argparse.Namespace) -> int:
    """Write an ONNX file and print its path."""
    from restorert import export_onnx
    from restorert.engine.profile import parse_shape
    from restorert.progress import stage

    shape = parse_shape(options.shapes) if options.shapes is not None else None
    check_outputs(options, "")
    _check_onnx_name(options.output)
    network = network_of(options)
    with progress_bars() as progress, stage("exporting to ONNX", progress):
        export_onnx(
            network,
            options.output,
            precision=options.precision or "fp32",
            shape=shape,
            dynamic=options.shapes is None,
            deploy=options.deploy,
        )
    print(options.output)
    return 0
