"""The command line: restorert restore | build | export | networks | doctor."""

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
    restore.add_argument("--engine", type=Path, help="a built engine instead of --weights")
    _add_precision(restore)
    _add_runner(restore)
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
    _add_precision(build)
    _add_runner(build)
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

    export = commands.add_parser("export", help="write a network as an ONNX file")
    _add_network(export)
    _add_precision(export)
    export.add_argument("--shapes", metavar="NxCxHxW", help="fixed shape; default: any shape")
    export.add_argument("-o", "--output", type=Path, required=True)
    export.set_defaults(command=_export)

    networks = commands.add_parser("networks", help="list the networks")
    networks.set_defaults(command=_networks)

    doctor = commands.add_parser(
        "doctor", help="say what works on this machine and what is missing"
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME", help="a name from `restorert networks`")
    parser.add_argument("--weights", type=Path, metavar="FILE", help=".pth or .safetensors")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"))
    for name in ("fp16", "bf16"):
        parser.add_argument(
            f"--{name}",
            dest="precision",
            action="store_const",
            const=name,
            help=f"same as --precision {name}",
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
    elif options.weights is not None:
        engine = _FittingEngine(options, tile, console)
    else:
        raise InputError(
            "give a checkpoint with --weights FILE or a built engine with --engine FILE"
        )
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

        multiple, channels = self.spec.size_multiple, self.spec.in_channels
        best = (self.tile, self.tile) if self.tile else (720, 1280)
        before = self.engine.runner.profile if self.engine else None
        least = before.max[2:] if before else best
        largest = [max(pair) for pair in zip(size, least, strict=True)]
        if not self.tile:
            largest = [-(-side // self.STEP) * self.STEP for side in largest]

        def shape(sides: Sequence[int]) -> tuple[int, int, int, int]:
            height, width = (-(-side // multiple) * multiple for side in sides)
            return 1, channels, height, width

        profile = ShapeProfile(shape((1, 1)), shape(best), shape(largest))
        with _progress() as progress:
            return build_engine(
                self.network,
                precision=self.precision,
                profile=profile,
                runner=self.runner,
                progress=progress,
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
    if options.onnx is not None:
        if options.weights is not None or options.model is not None:
            raise InputError("--onnx excludes --weights and --model")
        network: Any = options.onnx
        if options.precision is None and recipe is None:
            precision = str(read_metadata(options.onnx).get("precision"))
    else:
        network = _network(options, default=recipe.network if recipe else None)
    with _progress() as progress:
        path = build_engine_file(
            network,
            options.output,
            precision=precision,
            profile=profile,
            runner=options.runner,
            options=builder,
            progress=progress,
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
    print(path)
    return 0


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
        )
    print(options.output)
    return 0


def _networks(options: argparse.Namespace) -> int:
    import torch
    from rich.console import Console
    from rich.table import Table

    from restorert import create_network, list_networks
    from restorert.networks.counts import count_macs, count_parameters

    table = Table()
    table.add_column("network", no_wrap=True)
    for heading in ("task", "paper", "params M", "GMAC 256x256", "multiple", "tile"):
        table.add_column(heading)
    for name in list_networks():
        with torch.device("meta"):
            network = create_network(name)
        spec = network.spec
        table.add_row(
            name,
            spec.task,
            spec.paper,
            f"{count_parameters(network) / 1e6:.2f}",
            f"{count_macs(network, (1, spec.in_channels, 256, 256)).exact / 1e9:.1f}",
            str(spec.size_multiple),
            str(spec.tile or "-"),
        )
    # A file or a pipe has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
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
