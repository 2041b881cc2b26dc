"""restorert COMMAND: pictures, videos, engines, INT8 calibration, and what works here."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from restorert import __version__
from restorert.command_line import Parser, guarded, number, print_error
from restorert.errors import DeviceMemoryError, InputError, QualityError, RestorertError

if TYPE_CHECKING:
    from rich.console import Console

    from restorert.engine import ShapeProfile
    from restorert.networks import RestorationNetwork
    from restorert.progress import Progress
    from restorert.quantize import CalibrationCache, Patches
    from restorert.restore import SelfEnsemble
    from restorert.runtime import Engine, EngineOnDemand


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. No traceback reaches the user."""

    def work() -> int:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)

    return guarded("restorert", work)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="restorert", description=__doc__)
    parser.add_argument("--version", action="version", version=f"restorert {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    restore = commands.add_parser("restore", help="restore a picture or a folder of pictures")
    restore.add_argument("source", type=_path, help="picture, or folder of pictures")
    restore.add_argument("target", type=_path, help="picture, or folder to write them to")
    _add_engine(restore)
    restore.set_defaults(command=_restore)

    video = commands.add_parser("video", help="restore a video, frame by frame")
    video.add_argument("source", type=_path, help="video")
    video.add_argument("target", type=_path, help=".mp4, .m4v, .mov, .mkv or .webm")
    _add_engine(video)
    video.add_argument(
        "--codec", metavar="NAME", help="FFmpeg's encoder; default libx264, for .webm libvpx-vp9"
    )
    video.add_argument(
        "--crf",
        type=number(int, 0, 63),
        metavar="N",
        help="constant rate factor, lower is better; default for libx264: 16",
    )
    video.add_argument(
        "--encoder-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="more of the encoder's own, such as preset=slow; may be repeated",
    )
    video.set_defaults(command=_video)

    build = commands.add_parser("build", help="build an engine file")
    _add_network(build)
    build.add_argument("--recipe", type=_path, help="a TOML recipe, such as engines/hinet.toml")
    build.add_argument("--onnx", type=_path, help="an ONNX file from `restorert export`")
    _add_precision(build, "int8")
    build.add_argument(
        "--images",
        type=_path,
        metavar="DIR",
        help="pictures to calibrate int8 on, or to measure on",
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
    build.add_argument("-o", "--output", type=_path, help="engine file; default: in the cache")
    build.set_defaults(command=_build)

    calibrate = commands.add_parser(
        "calibrate", help="write a network as an INT8 ONNX file, calibrated on pictures"
    )
    _add_network(calibrate)
    calibrate.add_argument(
        "--images", type=_path, metavar="DIR", help="pictures as the network gets them"
    )
    _add_pictures(calibrate)
    calibrate.add_argument(
        "--cache", type=_path, metavar="FILE.json", help="scales of an earlier run, perhaps edited"
    )
    calibrate.add_argument(
        "--sensitivity", action="store_true", help="rank the layers by the harm that each does"
    )
    calibrate.add_argument(
        "--runner",
        default="tensorrt",
        choices=("tensorrt", "tensorrt_rtx", "openvino"),
        help="what the deploy form is for; default tensorrt",
    )
    _add_deploy(calibrate)
    calibrate.add_argument("-o", "--output", type=_path, required=True, metavar="FILE.onnx")
    calibrate.set_defaults(command=_calibrate)

    export = commands.add_parser("export", help="write a network as an ONNX file")
    _add_network(export)
    _add_precision(export)
    _add_deploy(export)
    export.add_argument("--shapes", metavar="NxCxHxW", help="fixed shape; default: any shape")
    export.add_argument("-o", "--output", type=_path, required=True)
    export.set_defaults(command=_export)

    inspect = commands.add_parser(
        "inspect", help="say what an engine is, or what a plan of a network would move"
    )
    inspect.add_argument(
        "source", help="engine, checkpoint, ONNX file, or a name from `restorert networks`"
    )
    _add_precision(inspect)
    _add_deploy(inspect)
    inspect.add_argument("--size", metavar="WxH", help="default: 1280x720")
    inspect.add_argument("--compute-capability", metavar="X.Y", help="GPU to plan for; default 8.9")
    inspect.add_argument(
        "--kernels",
        type=number(int, 0),
        metavar="N",
        help="show the N that move most; default 10",
    )
    inspect.set_defaults(command=_inspect)
    classify = commands.add_parser("classify", help="name the degradation of a picture")
    classify.add_argument("source", type=_path, help="picture")
    classify.add_argument("--model", metavar="NAME", help="the encoder's, if not read off its file")
    classify.add_argument(
        "--weights",
        type=_path,
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


def _path(text: str) -> Path:
    # Path("") is the current folder, which nobody means who leaves a shell variable unset.
    if not text:
        raise argparse.ArgumentTypeError("an empty path; name a file or a folder")
    return Path(text)


def _refuse(options: argparse.Namespace, names: Sequence[str], where: str) -> None:
    """Refuse the options of these names that were given, though they would change nothing."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value != [] and not (name == "deploy" and value):
            flags = {
                "deploy": "--no-deploy",
                "patches": "-n",
                "precision": f"--precision {value}",
            }
            flag = flags.get(name, f"--{name}")
            raise InputError(f"{flag.replace('_', '-')} has no meaning {where}")


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="a name from `restorert networks`")
    parser.add_argument(
        "--weights", type=_path, metavar="FILE", help=".pth, .safetensors, TensorFlow prefix"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """What restores, and how."""
    _add_network(parser)
    parser.add_argument(
        "--engine", type=_path, help="a built engine; without it and --weights: hinet-tiny"
    )
    _add_precision(parser, "int8")
    _add_runner(parser)
    _add_deploy(parser)
    parser.add_argument(
        "--tile",
        default="auto",
        metavar="auto|off|N",
        help="side of the overlapping crops in pixels; auto is what the network was tested with",
    )
    parser.add_argument(
        "--self-ensemble",
        type=number(int, 1, 8),
        default=1,
        metavar="1|2|4|8",
        help="average so many mirrored and turned runs: better by some tenths of a dB, and slower",
    )


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    """How pictures are used for INT8."""
    parser.add_argument(
        "--method",
        choices=("minmax", "entropy", "percentile", "mse"),
        help="how ranges follow from what was observed; default mse",
    )
    parser.add_argument("--percentile", type=float, help="of that method; default 99.99")
    parser.add_argument(
        "-n", "--patches", type=number(int, 1), metavar="N", help="patches to use; default 64"
    )
    parser.add_argument(
        "--noise",
        type=number(float, 0, 255),
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
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--precision", choices=("fp32", "fp16", "bf16", *more))
    for name in ("fp16", "bf16"):
        group.add_argument(
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
    """The network of --weights and --model; says which weights it has if only a name is given."""
    from restorert import create_network, load_network
    from restorert.weights import shipped_weights

    if options.weights is not None:
        return load_network(options.weights, name=options.model)
    name = options.model or default
    if name is None:
        raise InputError("name a network with --model NAME or a checkpoint with --weights FILE")
    shipped = shipped_weights().get(name)
    if shipped is not None:
        _console().print(f"no --weights: {name} with the package's own weights")
        return load_network(shipped, name=name)
    network = create_network(name)
    _console().print(f"random weights of {name}: give --weights FILE")
    return network


def _restore(options: argparse.Namespace) -> int:
    from restorert import restore_image
    from restorert.restore.video import CONTAINERS as VIDEOS

    tile = _tile(options.tile)
    console = _console()
    if options.source.suffix.lower() in VIDEOS and options.source.is_file():
        raise InputError(f"{options.source} is a video by its name; use: restorert video")
    engine = _engine(options, tile, console)
    pairs, skipped = _pairs(options.source, options.target)
    folder = options.source.is_dir()
    from rich.progress import track

    bars = len(pairs) > 1 and console.is_terminal
    failed = 0
    for source, target in track(
        pairs, "restoring", console=console, transient=True, disable=not bars
    ):
        try:
            restore_image(source, target, engine, tile=tile)
        except (RestorertError, MemoryError) as error:
            told = _in_tiles(source, error) if isinstance(error, MemoryError) else error
            if len(pairs) == 1:
                raise told from None
            failed += 1
            print_error("restorert", told)
    if failed:
        raise InputError(f"{failed} of {len(pairs)} pictures could not be restored{skipped}")
    if folder:
        console.print(f"{len(pairs)} of {len(pairs)} pictures restored{skipped}")
    return 0


def _engine(
    options: argparse.Namespace,
    tile: Literal["auto"] | int | None,
    console: Console,
    *,
    one_size: bool = False,
) -> Engine | EngineOnDemand | SelfEnsemble:
    """The engine of --engine, or one of --weights and --model that is built when it is needed."""
    from restorert.restore import SelfEnsemble

    members = options.self_ensemble
    # The last four members of eight swap height and width.
    engine = _one_engine(options, tile, console, one_size=one_size and members < 8)
    return engine if members == 1 else SelfEnsemble(engine, members)


def _one_engine(
    options: argparse.Namespace,
    tile: Literal["auto"] | int | None,
    console: Console,
    *,
    one_size: bool,
) -> Engine | EngineOnDemand:
    from restorert import EngineOnDemand, load_engine

    if options.engine is None:
        if options.weights is None:
            options.weights = _shipped(options.model, console)
        return EngineOnDemand(
            _network(options),
            precision=options.precision or "fp32",
            runner=options.runner,
            tile=tile,
            one_size=one_size,
            deploy=options.deploy,
            building=_progress,
            on_build=lambda engine: console.print(engine.describe()),
        )
    for flag, given in (
        ("weights", options.weights is not None),
        ("model", options.model is not None),
        ("precision", options.precision is not None),
        ("runner", options.runner != "auto"),
        ("no-deploy", not options.deploy),
    ):
        if given:
            raise InputError(f"--engine excludes --{flag}: an engine brings its own")
    engine = load_engine(options.engine)
    console.print(engine.describe())
    return engine


def _video(options: argparse.Namespace) -> int:
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from restorert.restore.video import restore_video

    encoder_options = {}
    for text in options.encoder_option:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputError(f"--encoder-option takes NAME=VALUE, not {text[:40]!r}")
        encoder_options[name] = value
    tile = _tile(options.tile)
    console = _console()
    engine = _engine(options, tile, console, one_size=True)
    first = 0.0
    columns = (
        TextColumn("restoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[rate]:.3g} a second,"),
        TimeLeft(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task("restoring", total=None, rate=0.0)

        def show(done: int, of: int) -> None:
            nonlocal first
            first = first or time.perf_counter()
            # Counted from the first frame on, before which the engine is built.
            seconds = time.perf_counter() - first
            rate = (done - 1) / seconds if seconds else 0.0
            bars.update(task, completed=done, total=of or None, rate=rate)

        started = time.perf_counter()
        try:
            report = restore_video(
                options.source,
                options.target,
                engine,
                tile=tile,
                codec=options.codec,
                crf=options.crf,
                options=encoder_options,
                progress=show,
            )
        except MemoryError as error:
            raise _in_tiles(options.source, error) from None
    seconds = time.perf_counter() - started
    console.print(
        f"{report.frames} frames in {seconds:.1f} s, the engine's start included"
        + (f"; left out: {', '.join(report.dropped)}" if report.dropped else "")
    )
    if report.incomplete:
        console.print(
            f"{options.source} is damaged: {report.frames} frames of {report.expected or '?'} "
            f"could be read, {report.damaged} packets could not"
        )
    return 0


def _in_tiles(source: Path, error: MemoryError) -> DeviceMemoryError:
    """The error with its cure as the command line knows it."""
    known = isinstance(error, DeviceMemoryError)
    said = str(error) if known else f"{source}: not enough memory; restore in smaller tiles"
    return DeviceMemoryError(f"{said}: --tile N")


# In pixels; no camera's picture has a longer side.
_LARGEST_TILE = 65536

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
    digits = text.lstrip("0")
    # By its length first: Python refuses to read thousands of digits.
    if digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= _LARGEST_TILE:
        return int(digits)
    raise InputError(
        f"--tile takes auto, off or a number of pixels up to {_LARGEST_TILE}, not {text[:20]!r}"
    )


def _pairs(source: Path, target: Path) -> tuple[list[tuple[Path, Path]], str]:
    """Pictures and where they go, and in words what else lies in the folder."""
    from restorert.pictures.files import FORMATS

    if not source.is_dir():
        return [(source, target)], ""
    found = sorted(source.iterdir())
    files = [path for path in found if not path.is_dir()]
    pictures = [path for path in files if path.suffix.lower() in FORMATS]
    if not pictures:
        raise InputError(f"the folder {source} holds no pictures: {', '.join(FORMATS)}")
    if target.suffix.lower() in FORMATS and not target.is_dir():
        raise InputError(f"{source} is a folder, {target} a picture's name; name a folder to write")
    others = {
        "files of other formats": len(files) - len(pictures),
        "folders": len(found) - len(files),
    }
    skipped = ", ".join(f"{what}: {count}" for what, count in others.items() if count)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {target}: {error.strerror}") from None
    pairs = [(picture, target / picture.name) for picture in pictures]
    return pairs, f"; skipped {skipped}" if skipped else ""


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
    from restorert.engine.device import short_version
    from restorert.engine.recipe import BuilderOptions
    from restorert.engine.sidecar import read_sidecar
    from restorert.export import read_metadata
    from restorert.export.onnx_file import spec_of
    from restorert.networks import network_spec
    from restorert.weights import shipped_calibrations

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
    _check_pictures(options)
    backend = choose(options.runner, to_run=False)
    if backend.name == "openvino":
        only = ("compute_capability", "optimization_level", "workspace")
        _refuse(options, only, "with openvino")
    elif backend.name == "tensorrt":
        _refuse(options, ("compute_capability",), "with tensorrt: it builds for the GPU here")
    if options.output is not None:
        _check_outputs(options, "", ".json")
    if options.onnx is not None:
        for flag in ("weights", "model", "images"):
            if getattr(options, flag) is not None:
                raise InputError(f"--onnx excludes --{flag}")
        _refuse(options, ("deploy", *_PICTURES), "with --onnx")
        network: Any = options.onnx
        if options.precision is None and recipe is None:
            precision = str(read_metadata(options.onnx).get("precision"))
    else:
        if precision != "int8":
            _refuse(options, ("method", "percentile", "keep_fp16"), f"with {precision}")
            if options.images is None:
                _refuse(options, ("patches", "noise", "limit"), "without --images")
        elif options.images is None:
            name = options.model or (recipe.network if recipe else None)
            if options.weights is not None or name not in shipped_calibrations():
                raise InputError(
                    "int8 needs pictures to calibrate on with --images DIR, or a file from "
                    "`restorert calibrate` with --onnx FILE"
                )
            _refuse(options, _PICTURES, "without --images")
        network = _network(options, default=recipe.network if recipe else None)
    if recipe is not None:
        spec = spec_of(read_metadata(network)) if options.onnx else network.spec
        if spec.family != network_spec(recipe.network).family:
            raise InputError(
                f"{options.recipe} is a recipe of {recipe.network}, the network is {spec.name}"
            )
    if options.runner == "tensorrt" and backend.name != "tensorrt":
        _console().print(f"no tensorrt here (see: restorert doctor): built by {backend.name}")
    if options.images is not None:
        ran = precision if precision == "int8" else backend.arithmetic(precision)
        limit = options.limit
        if limit is None and recipe is not None:
            limit = recipe.limits.get(ran)
        if precision == "int8":
            network = _quantized(options, network, limit, backend.name)
        else:
            told = precision if ran == precision else f"{precision}, run as {ran} by {backend.name}"
            _measure(options, network, ran, limit, told)
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


# The options of `_add_pictures`.
_PICTURES = ("method", "percentile", "patches", "noise", "keep_fp16", "limit")


def _check_pictures(options: argparse.Namespace) -> None:
    """Refuse what the parser cannot of `_add_pictures`."""
    from restorert.precision import check_limit

    if options.limit is not None:
        check_limit(options.limit, "--limit")
    if options.method != "percentile":
        _refuse(options, ("percentile",), "without --method percentile")
    if "auto" in options.keep_fp16 and len(options.keep_fp16) > 1:
        raise InputError("--keep-fp16 takes auto or layers, not both")


def _check_outputs(options: argparse.Namespace, *suffixes: str) -> None:
    """Refuse an --output that cannot be written or that is an input, with each of the suffixes."""
    from restorert.files import check_output
    from restorert.quantize.patches import picture_files

    names = ("weights", "onnx", "recipe", "cache")
    inputs = [getattr(options, name, None) for name in names]
    if getattr(options, "images", None) is not None:
        inputs += picture_files(options.images)
    for suffix in suffixes:
        check_output(f"{options.output}{suffix}", *inputs)


def _check_onnx_name(path: Path) -> None:
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path} will be an ONNX file: give it a name that ends in .onnx")


def _patches(options: argparse.Namespace, network: RestorationNetwork) -> Patches:
    """Of --images."""
    from restorert import read_patches

    count, noise = options.patches or 64, options.noise or 0.0
    return read_patches(options.images, network.spec, count, noise=noise)


def _measure(
    options: argparse.Namespace,
    network: RestorationNetwork,
    precision: str,
    limit: float | None,
    told: str,
) -> None:
    """Print what a precision costs on --images; refuse it where that is too much."""
    from restorert.quantize import check_quality
    from restorert.quantize.quantize import quality_of

    quality = quality_of(network, precision, _patches(options, network))
    _console().print(f"{told}: {quality}")
    check_quality(quality, precision, limit)


def _quantized(
    options: argparse.Namespace, network: RestorationNetwork, limit: float | None, runner: str
) -> Path:
    """The calibrated ONNX file beside the engine, or in the cache."""
    from restorert.engine import EngineCache

    if options.output is not None:
        _check_outputs(options, ".onnx", ".onnx.json")
        path = Path(f"{options.output}.onnx")
    else:
        from restorert.quantize.patches import picture_files, sha256_of_picture
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
                runner,
            ],
        }
        path = cache.path(f"{network.spec.name}-int8", facts, ".onnx")
        path.parent.mkdir(parents=True, exist_ok=True)
    _write_quantized(options, network, path, limit, runner=runner)
    return path


def _calibrate(options: argparse.Namespace) -> int:
    from restorert import read_calibration
    from restorert.files import check_output

    _check_pictures(options)
    if options.cache is not None:
        _refuse(options, ("method", "percentile"), "with --cache")
        if options.images is None:
            _refuse(options, ("patches", "noise", "limit"), "without --images")
    elif options.images is None:
        raise InputError("give pictures with --images DIR or an earlier calibration with --cache")
    _check_outputs(options, "")
    check_output(f"{options.output}.json")  # may be --cache's, which it says again
    _check_onnx_name(options.output)
    calibration = read_calibration(options.cache) if options.cache is not None else None
    _write_quantized(
        options,
        _network(options),
        options.output,
        options.limit,
        runner=options.runner,
        calibration=calibration,
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
    calibration: CalibrationCache | None = None,
    sensitivity: bool = False,
) -> None:
    """Calibrate, write the ONNX file and its calibration, and print what INT8 costs."""
    from restorert import quantize_network

    patches = _patches(options, network) if options.images is not None else None
    ranges = {name: getattr(options, name) for name in ("method", "percentile")}
    try:
        with _progress() as progress:
            report = quantize_network(
                network,
                path,
                patches,
                calibration=calibration,
                **{name: value for name, value in ranges.items() if value is not None},
                keep_fp16="auto" if options.keep_fp16 == ["auto"] else options.keep_fp16,
                limit=limit,
                sensitivity=sensitivity,
                runner=runner,
                deploy=options.deploy,
                progress=progress,
                state=Path(f"{path}.partial"),
            )
    except QualityError as error:
        if calibration is not None or error.calibration is None:
            raise
        # Not under the name that an earlier file's calibration has.
        refused = f"{path}.refused.json"
        error.calibration.write(refused)
        raise QualityError(
            f"{error}; the calibration is kept in {refused}: "
            f"restorert calibrate --cache {refused} uses it"
        ) from None
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

    shape = parse_shape(options.shapes) if options.shapes is not None else None
    _check_outputs(options, "")
    _check_onnx_name(options.output)
    network = _network(options)
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

    # Beside a calibrated ONNX file stands its calibration.
    is_onnx = options.source.endswith(".onnx")
    if not is_onnx and sidecar_path(options.source).exists():
        _refuse(options, _PLANNING, "with a built engine")
        sidecar = read_sidecar(options.source)
        check_engine_file(options.source, sidecar)
        _print_sidecar(sidecar)
        return 0
    if is_onnx:
        _refuse(options, ("precision", "deploy"), "with an ONNX file")
    return _inspect_plan(options)


_PLANNING = ("precision", "deploy", "size", "compute_capability", "kernels")


def _inspect_plan(options: argparse.Namespace) -> int:
    """Plan a network and print what its kernels move, beside the floor."""
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
            options=BuilderOptions(compute_capabilities=(capability,)),
            progress=progress,
            deploy=options.deploy,
        )
    console.print(
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
        or "of its ONNX file",
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
    from restorert.weights import shipped_weights

    decoder = options.weights[1]
    if not decoder.exists() and str(decoder) in shipped_weights():
        raise InputError(f"{decoder} is no degradation classifier: give ENCODER, then CLASSIFIER")
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

    from restorert.backends import BACKENDS
    from restorert.backends.tensorrt.module import NO_PLUGINS
    from restorert.engine import EngineCache
    from restorert.engine.device import short_version
    from restorert.ops.native_call import native
    from restorert.restore.video_frames import load_av

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    import torch

    gpu = device.cuda()
    console.print(f"restorert {__version__}, torch {torch.__version__}")
    console.print(f"CPU   {device.cpu()}")
    console.print(f"GPU   {gpu or 'none that torch sees'}")
    try:
        info = native().build_info()
        console.print(f"kernels   {', '.join(f'{k} {v}' for k, v in info.items())}")
    except RestorertError as error:
        console.print(f"kernels   {error}")
    console.print(f"plugins   {device.plugin_library() or NO_PLUGINS}")
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
        console.print(f"video   PyAV {load_av().__version__}")
    except RestorertError as error:
        console.print(f"video   no: {error}")
    try:
        cache = EngineCache()
        files, size = cache.size()
        console.print(f"cache   {cache.folder}: {files} files, {size / 1e6:.0f} MB")
    except RestorertError as error:
        console.print(f"cache   {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
