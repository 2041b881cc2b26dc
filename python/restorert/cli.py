"""restorert restore | build | calibrate | inspect | export | classify | networks | doctor."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from restorert import __version__
from restorert.errors import InputError, RestorertError

if TYPE_CHECKING:
    from rich.console import Console

    from restorert.engine import ShapeProfile
    from restorert.engine.tensorrt_build import Progress
    from restorert.networks import RestorationNetwork
    from restorert.runners import Engine


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. No traceback reaches the user."""
    try:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except BrokenPipeError:  # the reader of a pipe has gone, as `| head` does
        sys.stdout = None  # type: ignore[assignment]
        return 141
    except (RestorertError, OSError, MemoryError) as error:
        _print_error(error)
        return 2
    except KeyboardInterrupt:
        print("restorert: stopped", file=sys.stderr)
        return 130


def _print_error(error: Exception) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"restorert: error: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="restorert", description=__doc__)
    parser.add_argument("--version", action="version", version=f"restorert {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    restore = commands.add_parser("restore", help="restore a picture or a folder of pictures")
    restore.add_argument("source", type=Path, help="picture, or folder of pictures")
    restore.add_argument("target", type=Path, help="picture, or folder to write them to")
    _add_network(restore)
    restore.add_argument(
        "--engine", type=Path, help="a built engine; without it and --weights: hinet-tiny"
    )
    _add_precision(restore)
    _add_runner(restore)
    _add_deploy(restore)
    restore.add_argument(
        "--tile",
        default="auto",
        metavar="auto|off|N",
        help="side of the overlapping crops in pixels; auto is what the network was tested with",
    )
    restore.set_defaults(command=_restore)

    build = commands.add_parser("build", help="build an engine file")
    _add_network(build)
    build.add_argument("--recipe", type=Path, help="a TOML recipe, such as engines/hinet.toml")
    build.add_argument("--onnx", type=Path, help="an ONNX file from `restorert export`")
    _add_precision(build, "int8")
    build.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures to calibrate int8 on, or to measure on"
    )
    _add_pictures(build)
    _add_runner(build)
    _add_deploy(build)
    for name, text in (
        ("shapes", "accept this shape only"),
        ("minShapes", "smallest shape"),
        ("optShapes", "shape to optimise for"),
        ("maxShapes", "largest shape"),
    ):
        build.add_argument(f"--{name}", metavar="[input:]NxCxHxW", help=text)
    build.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="X.Y",
        help="GPU to build for with TensorRT-RTX; may be repeated",
    )
    build.add_argument(
        "--optimization-level",
        type=int,
        metavar="0-5",
        help="TensorRT's: 0 builds fastest, 5 gives the fastest engine",
    )
    build.add_argument(
        "--workspace", type=int, metavar="MIB", help="most scratch memory a TensorRT layer may use"
    )
    build.add_argument("-o", "--output", type=Path, help="engine file; default: in the cache")
    build.set_defaults(command=_build)

    calibrate = commands.add_parser(
        "calibrate", help="write a network as an INT8 ONNX file, calibrated on pictures"
    )
    _add_network(calibrate)
    calibrate.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures as the network gets them"
    )
    _add_pictures(calibrate)
    calibrate.add_argument(
        "--cache", type=Path, metavar="FILE.json", help="scales of an earlier run, perhaps edited"
    )
    calibrate.add_argument(
        "--sensitivity", action="store_true", help="rank the layers by the harm that each does"
    )
    calibrate.add_argument(
        "--runner", default="tensorrt", metavar="NAME", help="what the deploy form is for"
    )
    _add_deploy(calibrate)
    calibrate.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    calibrate.set_defaults(command=_calibrate)

    export = commands.add_parser("export", help="write a network as an ONNX file")
    _add_network(export)
    _add_precision(export)
    _add_deploy(export)
    export.add_argument("--shapes", metavar="NxCxHxW", help="fixed shape; default: any shape")
    export.add_argument("-o", "--output", type=Path, required=True)
    export.set_defaults(command=_export)

    inspect = commands.add_parser(
        "inspect", help="say what an engine is, or what a plan of a network would move"
    )
    inspect.add_argument(
        "source", help="engine, checkpoint, ONNX file, or a name from `restorert networks`"
    )
    _add_precision(inspect)
    _add_deploy(inspect)
    inspect.add_argument("--size", default="1280x720", metavar="WxH", help="default: 1280x720")
    inspect.add_argument(
        "--compute-capability", default="8.9", metavar="X.Y", help="GPU to plan for"
    )
    inspect.add_argument(
        "--kernels", type=int, default=10, metavar="N", help="show the N that move most; default 10"
    )
    inspect.set_defaults(command=_inspect)
    classify = commands.add_parser("classify", help="name the degradation of a picture")
    classify.add_argument("source", type=Path, help="picture")
    classify.add_argument("--model", metavar="NAME", help="the encoder's, if not read off its file")
    classify.add_argument(
        "--weights",
        type=Path,
        nargs=2,
        required=True,
        metavar=("ENCODER", "CLASSIFIER"),
        help="DCPT's two checkpoints: restoration network, degradation classifier",
    )
    classify.add_argument(
        "--classes", metavar="A,B,...", help="what the classes are called, in their order"
    )
    classify.set_defaults(command=_classify)

    networks = commands.add_parser("networks", help="list the networks")
    networks.set_defaults(command=_networks)

    doctor = commands.add_parser(
        "doctor", help="say what works on this machine and what is missing"
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="a name from `restorert networks`")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help=".pth, .safetensors, TensorFlow prefix"
    )


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    """How pictures are used for INT8."""
    parser.add_argument(
        "--method",
        choices=("minmax", "entropy", "percentile", "mse"),
        default="mse",
        help="how ranges follow from what was observed; default mse",
    )
    parser.add_argument(
        "--percentile", type=float, default=99.99, help="of that method; default 99.99"
    )
    parser.add_argument(
        "-n", "--patches", type=int, default=64, metavar="N", help="patches to use; default 64"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="SIGMA",
        help="the pictures are clean: add noise of this standard deviation (of 255) to them",
    )
    parser.add_argument(
        "--keep-fp16",
        action="append",
        default=[],
        metavar="auto|LAYER",
        help="leave a layer in fp16, or as few as the limit allows; may be repeated",
    )
    parser.add_argument(
        "--limit", type=float, metavar="DB", help="most PSNR that may be lost; int8: 0.1"
    )


def _add_precision(parser: argparse.ArgumentParser, *more: str) -> None:
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16", *more))
    for name in ("fp16", "bf16"):
        parser.add_argument(
            f"--{name}",
            dest="precision",
            action="store_const",
            const=name,
            help=f"same as --precision {name}",
        )


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-deploy",
        dest="deploy",
        action="store_false",
        help="keep the authors' layers instead of the equal ones that move fewer bytes",
    )


def _add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runner",
        default="auto",
        metavar="NAME",
        help="auto, tensorrt, tensorrt_rtx, openvino; in memory, for restore: cuda, torch",
    )


def _console() -> Console:
    from rich.console import Console

    # No markup: brackets in a file's name are no style.
    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A callback that draws a bar a phase; nothing is drawn where nobody looks."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = _console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        tasks: dict[str, Any] = {}

        def show(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=share)

        yield show


def _network(options: argparse.Namespace, *, default: str | None = None) -> RestorationNetwork:
    """The network of --weights and --model; random weights where only a name is given."""
    from restorert import create_network, load_network

    if options.weights is not None:
        return load_network(options.weights, name=options.model)
    name = options.model or default
    if name is None:
        raise InputError("name a network with --model NAME or a checkpoint with --weights FILE")
    return create_network(name)


def _restore(options: argparse.Namespace) -> int:
    from restorert import load_engine, restore_image

    tile = _tile(options.tile)
    console = _console()
    engine: Any
    if options.engine is not None:
        for flag in ("weights", "model", "precision"):
            if getattr(options, flag) is not None:
                raise InputError(f"--engine excludes --{flag}: an engine brings its own")
        engine = load_engine(options.engine)
        console.print(engine.describe())
    else:
        if options.weights is None:
            options.weights = _shipped(options.model, console)
        engine = _FittingEngine(options, tile, console)
    pairs = _pairs(options.source, options.target)
    from rich.progress import track

    bars = len(pairs) > 1 and console.is_terminal
    failed = 0
    for source, target in track(
        pairs, "restoring", console=console, transient=True, disable=not bars
    ):
        try:
            restore_image(source, target, engine, tile=tile)
        except RestorertError as error:
            if len(pairs) == 1:
                raise
            failed += 1
            _print_error(error)
    if failed:
        raise InputError(f"{failed} of {len(pairs)} pictures could not be restored")
    return 0


# The network that restores where nobody names another.
_DEFAULT = "hinet-tiny"


def _shipped(model: str | None, console: Console) -> Path:
    """The weights in the package for --model, or for want of it the default's; says so."""
    from restorert.networks import network_spec
    from restorert.weights import shipped_weights

    shipped = shipped_weights()
    name = model or _DEFAULT
    task = network_spec(name).task
    if name not in shipped:
        raise InputError(
            f"no weights of {name} come with the package: give a checkpoint with --weights FILE or "
            "a built engine with --engine FILE"
        )
    console.print(f"no --weights: {name} with the package's own weights, for {task}")
    return shipped[name]


def _tile(text: str) -> Literal["auto"] | int | None:
    if text == "auto":
        return "auto"
    if text == "off":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise InputError(f"--tile takes auto, off or a number of pixels, not {text!r}")


def _pairs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    from restorert.restore.images import FORMATS

    if not source.is_dir():
        return [(source, target)]
    pictures = sorted(p for p in source.iterdir() if p.suffix.lower() in FORMATS)
    if not pictures:
        raise InputError(f"the folder {source} holds no pictures")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {target}: {error.strerror}") from None
    return [(picture, target / picture.name) for picture in pictures]


class _FittingEngine:
    """An engine that is built when the first picture comes, and again when one does not fit.

    Optimised for the tile where pictures come in tiles. Largest shapes grow in steps, so that a
    folder of many sizes needs few engines.
    """

    STEP = 512

    def __init__(
        self, options: argparse.Namespace, tile: Literal["auto"] | int | None, console: Console
    ) -> None:
        self.network = _network(options)
        self.spec = self.network.spec
        self.tile = self.spec.tile if tile == "auto" else tile
        self.precision: str = options.precision or "fp32"
        self.runner: str = options.runner
        self.deploy: bool = options.deploy
        self.console = console
        self.engine: Engine | None = None

    def __call__(self, frames: Any) -> Any:
        size = frames.shape[1:3] if frames.dtype == "uint8" else frames.shape[2:4]
        profile = self.engine.runner.profile if self.engine else None
        if self.engine is None or (profile and not self._fits(profile, size)):
            self.engine = self._build(size)
            self.console.print(self.engine.describe())
        return self.engine(frames)

    @staticmethod
    def _fits(profile: ShapeProfile, size: tuple[int, int]) -> bool:
        return size[0] <= profile.max[2] and size[1] <= profile.max[3]

    def _build(self, size: tuple[int, int]) -> Engine:
        from restorert import ShapeProfile, build_engine

        best = (self.tile, self.tile) if self.tile else (720, 1280)
        before = self.engine.runner.profile if self.engine else None
        least = before.max[2:] if before else best
        largest = [max(pair) for pair in zip(size, least, strict=True)]
        if not self.tile:
            largest = [-(-side // self.STEP) * self.STEP for side in largest]

        def shape(sides: Sequence[int]) -> tuple[int, int, int, int]:
            return self.spec.shape_for(sides[0], sides[1])

        profile = ShapeProfile(shape((1, 1)), shape(best), shape(largest))
        with _progress() as progress:
            return build_engine(
                self.network,
                precision=self.precision,
                profile=profile,
                runner=self.runner,
                progress=progress,
                deploy=self.deploy,
            )


def _profile(options: argparse.Namespace) -> ShapeProfile | None:
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


def _build(options: argparse.Namespace) -> int:
    from restorert import build_engine_file, read_recipe
    from restorert.engine.recipe import BuilderOptions
    from restorert.engine.sidecar import read_sidecar
    from restorert.export import read_metadata
    from restorert.runners.engine import short_version

    recipe = read_recipe(options.recipe) if options.recipe is not None else None
    profile = _profile(options) or (recipe.profile if recipe else None)
    precision = options.precision or (recipe.precision if recipe else "fp32")
    builder = recipe.options if recipe else BuilderOptions()
    changes = {
        "compute_capabilities": tuple(options.compute_capability) or None,
        "optimization_level": options.optimization_level,
        "workspace_mib": options.workspace,
    }
    builder = dataclasses.replace(
        builder, **{name: value for name, value in changes.items() if value is not None}
    )
    limit = options.limit
    if limit is None and recipe is not None:
        limit = recipe.limits.get(precision)
    if options.onnx is not None:
        for flag in ("weights", "model", "images"):
            if getattr(options, flag) is not None:
                raise InputError(f"--onnx excludes --{flag}")
        network: Any = options.onnx
        if options.precision is None and recipe is None:
            precision = str(read_metadata(options.onnx).get("precision"))
    else:
        network = _network(options, default=recipe.network if recipe else None)
        if options.images is None and precision == "int8":
            raise InputError(
                "int8 needs pictures to calibrate on with --images DIR, or a file from "
                "`restorert calibrate` with --onnx FILE"
            )
        if options.images is not None and precision != "int8":
            _measure(options, network, precision, limit)
        elif options.images is not None:
            network = _quantized(options, network, limit)
    with _progress() as progress:
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
    sidecar = read_sidecar(path)
    console = _console()
    targets = f" for sm {', '.join(sidecar.targets)}" if sidecar.targets else ""
    console.print(
        f"{sidecar.network['network']} by {sidecar.runner} "
        f"{short_version(sidecar.runner_version)}{targets}: "
        f"asked {sidecar.precision}, runs {sidecar.precision_ran}, shapes {sidecar.profile}, "
        f"{sidecar.engine_bytes / 1e6:.0f} MB, built in {sidecar.build_seconds:.1f} s"
    )
    if sidecar.precisions:
        console.print(_told_precisions(sidecar.precisions))
    print(path)
    return 0


def _told_precisions(precisions: dict[str, Any]) -> str:
    """The share of layers that runs in each precision."""
    total = sum(precisions.values())
    shares = sorted(precisions.items(), key=lambda item: -item[1])
    return "convolutions and matrix products run in " + ", ".join(
        f"{name} {count / total:.0%}" for name, count in shares
    )


def _measure(
    options: argparse.Namespace, network: RestorationNetwork, precision: str, limit: float | None
) -> None:
    """Print what a half precision costs on --images; refuse it where that is too much."""
    from restorert import read_patches
    from restorert.quantize import check_quality
    from restorert.quantize.quantization import quality_of

    patches = read_patches(options.images, network.spec, options.patches, noise=options.noise)
    quality = quality_of(network, precision, patches)
    _console().print(f"{precision}: {quality}")
    check_quality(quality, precision, limit)


def _quantized(
    options: argparse.Namespace, network: RestorationNetwork, limit: float | None
) -> Path:
    """The calibrated ONNX file beside the engine, or in the cache."""
    from restorert.engine import EngineCache

    if options.output is not None:
        path = Path(f"{options.output}.onnx")
    else:
        from restorert.restore.patches import picture_files, sha256_of_picture
        from restorert.weights import weights_hash

        cache = EngineCache()
        facts = {
            "weights": weights_hash(network),
            "pictures": sorted(map(sha256_of_picture, picture_files(options.images))),
            "options": [
                options.method,
                options.percentile,
                options.patches,
                options.noise,
                sorted(options.keep_fp16),
                options.deploy,
            ],
        }
        path = cache.path(f"{network.spec.name}-int8", facts, ".onnx")
        path.parent.mkdir(parents=True, exist_ok=True)
    _write_quantized(options, network, path, limit, runner=options.runner)
    return path


def _calibrate(options: argparse.Namespace) -> int:
    _write_quantized(
        options,
        _network(options),
        options.output,
        options.limit,
        runner=options.runner,
        cache=options.cache,
        sensitivity=options.sensitivity,
    )
    print(options.output)
    return 0


def _write_quantized(
    options: argparse.Namespace,
    network: RestorationNetwork,
    path: Path,
    limit: float | None,
    *,
    runner: str,
    cache: Path | None = None,
    sensitivity: bool = False,
) -> None:
    """Calibrate, write the ONNX file and its calibration, and print what INT8 costs."""
    from restorert import quantize_network, read_calibration, read_patches

    if "auto" in options.keep_fp16 and len(options.keep_fp16) > 1:
        raise InputError("--keep-fp16 takes auto or layers, not both")
    if options.images is None and cache is None:
        raise InputError("give pictures with --images DIR or an earlier calibration with --cache")
    calibration = read_calibration(cache) if cache is not None else None
    patches = None
    if options.images is not None:
        patches = read_patches(options.images, network.spec, options.patches, noise=options.noise)
    with _progress() as progress:
        report = quantize_network(
            network,
            path,
            patches,
            calibration=calibration,
            method=options.method,
            percentile=options.percentile,
            keep_fp16="auto" if options.keep_fp16 == ["auto"] else options.keep_fp16,
            limit=limit,
            sensitivity=sensitivity,
            runner=runner,
            deploy=options.deploy,
            progress=progress,
            state=Path(f"{path}.partial"),
        )
    report.calibration.write(f"{path}.json")
    console = _console()
    count = len(report.int8_layers)
    console.print(
        f"{network.spec.name}: {report.int8_share:.1%} of the multiply-accumulates in INT8, "
        f"{count} of {count + len(report.kept)} layers"
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in report.kept.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        console.print(f"not in INT8, {reason}: {len(names)} ({shown})")
    if report.quality is not None:
        console.print(f"int8: {report.quality}")
    for name, harm in report.sensitivity.items():
        print(f"{harm:.6f} {name}")


def _export(options: argparse.Namespace) -> int:
    from restorert import export_onnx
    from restorert.engine.profile import parse_shape

    network = _network(options)
    shape = parse_shape(options.shapes) if options.shapes is not None else None
    with _progress() as progress:
        progress("exporting to ONNX", 0.0)
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


def _inspect(options: argparse.Namespace) -> int:
    from restorert.engine.sidecar import check_engine_file, read_sidecar, sidecar_path

    if sidecar_path(options.source).exists():
        sidecar = read_sidecar(options.source)
        check_engine_file(options.source, sidecar)
        _print_sidecar(sidecar)
        return 0
    return _inspect_plan(options)


def _inspect_plan(options: argparse.Namespace) -> int:
    """Plan a network and print what its kernels move, beside the floor."""
    from restorert import create_network, list_networks, load_network
    from restorert.engine.profile import parse_size
    from restorert.engine.recipe import BuilderOptions
    from restorert.engine.tensorrt_build import plan_of, planner
    from restorert.export import read_metadata
    from restorert.networks.counts import count_bytes, count_macs
    from restorert.runners import spec_of

    height, width = parse_size(options.size)
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
        raise InputError(f"{options.source} is no file and no network; see: restorert networks")
    if not isinstance(source, Path) and options.deploy:
        deployed = source.deploy(planner()).deployed
        print(f"deploy form: {', '.join(deployed) or 'as published'}")
    shape = spec.shape_for(height, width)
    console = _console()
    with _progress() as progress:
        plan = plan_of(
            source,
            shape,
            precision=precision,
            options=BuilderOptions(compute_capabilities=(options.compute_capability,)),
            progress=progress,
            deploy=options.deploy,
        )
    console.print(
        f"{spec.name}, {precision}, {shape[3]}x{shape[2]}, compute capability "
        f"{options.compute_capability}"
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
    for kernel in largest[: max(options.kernels, 0)]:
        size = f"{kernel.total_bytes / 1e6:9.1f} MB" if kernel.total_bytes is not None else "?"
        print(f"{size}  {kernel.kind:14s}  {kernel.name}  <- {', '.join(kernel.onnx[:3])}")
    return 0


def _print_kinds(kinds: dict[str, list[Any]]) -> None:
    """A line a kind: kernels and bytes."""
    known = all(size is not None for _, size in kinds.values())
    rows = [*kinds.items()]
    rows.append(("all", [sum(n for n, _ in kinds.values()), None]))
    if known:
        rows[-1][1][1] = sum(size for _, size in kinds.values())
    for kind, (count, size) in rows:
        moved = "" if size is None else f"{size / 1e9:10.3f} GB"
        print(f"{kind:14s} {count:5d} kernels {moved}".rstrip())


def _print_sidecar(sidecar: Any) -> None:
    from restorert.runners.engine import short_version

    targets = ", ".join(sidecar.targets)
    device = f"compute capability {targets}" if targets else f"{sidecar.device.get('name')}"
    lines = {
        "network": sidecar.network.get("network"),
        "runner": f"{sidecar.runner} {short_version(sidecar.runner_version)}",
        "precision": f"{sidecar.precision} asked, {sidecar.precision_ran} runs",
        "shapes": str(sidecar.profile),
        "device": device,
        "size": f"{sidecar.engine_bytes / 1e6:.1f} MB, built in {sidecar.build_seconds:.1f} s",
        "weights": sidecar.weights_sha256[:16] or "of its ONNX file",
        "rebuild": sidecar.rebuild or "from its network: its weights are in no file",
    }
    for name, text in lines.items():
        print(f"{name:10s} {text}")
    if sidecar.precisions:
        print(_told_precisions(sidecar.precisions))
    if sidecar.plan:
        _print_kinds(sidecar.plan)


def _classify(options: argparse.Namespace) -> int:
    import torch

    from restorert import classify_image, load_classifier
    from restorert.networks.degradation_classifier import CLASSES

    named = [name.strip() for name in options.classes.split(",")] if options.classes else None
    classifier = load_classifier(*options.weights, name=options.model, classes=named)
    if torch.cuda.is_available():
        classifier = classifier.cuda()
    shares = classify_image(options.source, classifier)
    if named is None and len(shares) in CLASSES:
        _console().print(
            "note: the authors do not publish the order of the classes; these names follow "
            + ("their test options" if len(shares) == 5 else "the paper's table 16")
            + "; others with --classes A,B,..."
        )
    for name, share in shares.items():
        print(f"{share:.4f} {name}")
    return 0


def _networks(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from restorert import list_networks, network_spec
    from restorert.networks.counts import count_variant

    table = Table(title="GMAC: of a picture of 256x256; PSNR in dB, as the authors state it")
    table.add_column("network", no_wrap=True)
    for heading in ("task", "paper", "params M", "GMAC", "paper PSNR", "multiple", "tile"):
        table.add_column(heading)
    for name in list_networks():
        spec, count = network_spec(name), count_variant(name)
        table.add_row(
            name,
            spec.task,
            spec.paper,
            f"{count.parameters / 1e6:.2f}",
            f"{count.macs.exact / 1e9:.1f}",
            "-" if spec.paper_psnr is None else f"{spec.paper_psnr[1]:.2f} {spec.paper_psnr[0]}",
            str(spec.size_multiple),
            str(spec.tile or "-"),
        )
    # A file or a pipe has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console

    from restorert.engine import EngineCache, environment
    from restorert.engine.tensorrt_build import NO_PLUGINS
    from restorert.ops.native_call import native
    from restorert.runners import BACKENDS
    from restorert.runners.cuda_runner import check_cuda
    from restorert.runners.engine import short_version

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    import torch

    gpu = environment.cuda()
    console.print(f"restorert {__version__}, torch {torch.__version__}")
    console.print(f"CPU   {environment.cpu()}")
    console.print(f"GPU   {gpu or 'none that torch sees'}")
    try:
        info = native().build_info()
        console.print(f"kernels   {', '.join(f'{k} {v}' for k, v in info.items())}")
    except RestorertError as error:
        console.print(f"kernels   {error}")
    console.print(f"plugins   {environment.plugin_library() or NO_PLUGINS}")
    for backend in BACKENDS:
        lines = []
        for verb, check in (("builds", backend.check_buildable), ("runs", backend.check_runnable)):
            try:
                check()
                lines.append(verb)
            except RestorertError as error:
                lines.append(f"no: {error}")
                break
        version = f" {short_version(backend.version())}" if lines[0] == "builds" else ""
        console.print(f"runner {backend.name}{version}: {', '.join(lines)}")
    try:
        check_cuda()
        console.print("runner cuda: runs")
    except RestorertError as error:
        console.print(f"runner cuda: no: {error}")
    try:
        cache = EngineCache()
        files, size = cache.size()
        console.print(f"cache   {cache.folder}: {files} files, {size / 1e6:.0f} MB")
    except RestorertError as error:
        console.print(f"cache   {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
