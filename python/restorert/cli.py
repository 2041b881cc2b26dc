"""The command line: restorert restore | build | export | networks | doctor."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from restorert import __version__
from restorert.errors import InputError, RestorertError

if TYPE_CHECKING:
    from rich.console import Console

    from restorert.engine import ShapeProfile
    from restorert.engine.tensorrt_build import Progress
    from restorert.networks import RestorationNetwork
    from restorert.runners import Engine

_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. No traceback reaches the user."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except RestorertError as error:
        print(f"restorert: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("restorert: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="restorert", description=__doc__)
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
        help="auto, tensorrt, tensorrt_rtx, openvino or torch",
    )


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A callback that draws a bar a phase; nothing is drawn where nobody looks."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=_console(),
        transient=True,
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
    pairs = _pairs(options.source, options.target)
    console = _console()
    engine: Any
    if options.engine is not None:
        engine = load_engine(options.engine)
        console.print(engine.describe(), highlight=False, soft_wrap=True)
    elif options.weights is not None:
        engine = _FittingEngine(options, console)
    else:
        raise InputError(
            "give a checkpoint with --weights FILE or a built engine with --engine FILE"
        )
    from rich.progress import track

    failed = 0
    for source, target in track(
        pairs, "restoring", console=console, transient=True, disable=len(pairs) == 1
    ):
        try:
            restore_image(source, target, engine, tile=tile)
        except RestorertError as error:
            if len(pairs) == 1:
                raise
            failed += 1
            console.print(f"restorert: error: {error}", highlight=False, soft_wrap=True)
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
    if not source.is_dir():
        return [(source, target)]
    pictures = sorted(p for p in source.iterdir() if p.suffix.lower() in _PICTURE_SUFFIXES)
    if not pictures:
        raise InputError(f"the folder {source} holds no pictures")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {target}: {error.strerror}") from None
    return [(picture, target / picture.name) for picture in pictures]


class _FittingEngine:
    """An engine that is built when the first picture comes, and again when one does not fit.

    Largest shapes grow in steps, so that a folder of many sizes needs few engines.
    """

    STEP = 512

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.network = _network(options)
        self.spec = self.network.spec
        self.precision: str = options.precision or "fp32"
        self.runner: str = options.runner
        self.console = console
        self.engine: Engine | None = None

    def __call__(self, frames: Any) -> Any:
        size = frames.shape[1:3] if frames.dtype == "uint8" else frames.shape[2:4]
        profile = self.engine.runner.profile if self.engine else None
        if self.engine is None or (profile and not self._fits(profile, size)):
            self.engine = self._build(size)
            self.console.print(self.engine.describe(), highlight=False, soft_wrap=True)
        return self.engine(frames)

    @staticmethod
    def _fits(profile: ShapeProfile, size: tuple[int, int]) -> bool:
        return size[0] <= profile.max[2] and size[1] <= profile.max[3]

    def _build(self, size: tuple[int, int]) -> Engine:
        from restorert import ShapeProfile, build_engine

        multiple, channels = self.spec.size_multiple, self.spec.in_channels
        height, width = (
            -(-max(side, least) // self.STEP) * self.STEP
            for side, least in zip(size, (720, 1280), strict=True)
        )
        largest = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
        best = tuple(-(-side // multiple) * multiple for side in (720, 1280))
        profile = ShapeProfile(
            (1, channels, multiple, multiple), (1, channels, *best), (1, channels, *largest)
        )
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

    recipe = read_recipe(options.recipe) if options.recipe is not None else None
    profile = _profile(options) or (recipe.profile if recipe else None)
    precision = options.precision or (recipe.precision if recipe else "fp32")
    builder = recipe.options if recipe else BuilderOptions()
    if options.compute_capability:
        import dataclasses

        builder = dataclasses.replace(
            builder, compute_capabilities=tuple(options.compute_capability)
        )
    if options.onnx is not None:
        if options.weights is not None or options.model is not None:
            raise InputError("--onnx excludes --weights and --model")
        network: Any = options.onnx
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
        f"{sidecar.network['network']} by {sidecar.runner} {sidecar.runner_version}{targets}: "
        f"asked {sidecar.precision}, runs {sidecar.precision_ran}, shapes {sidecar.profile}, "
        f"{sidecar.engine_bytes / 1e6:.0f} MB, built in {sidecar.build_seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    print(path)
    return 0


def _export(options: argparse.Namespace) -> int:
    from restorert import export_onnx
    from restorert.engine.profile import parse_shape

    network = _network(options)
    multiple = network.spec.size_multiple
    shape = (1, network.spec.in_channels, multiple, multiple)
    if options.shapes is not None:
        shape = parse_shape(options.shapes)
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

    table = Table("network", "task", "paper", "params M", "GMAC 256x256", "multiple", "tile")
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
    Console().print(table)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console

    from restorert.engine import EngineCache, environment
    from restorert.ops._native_call import native
    from restorert.runners import BACKENDS

    console = Console(highlight=False, soft_wrap=True)
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
    console.print(f"plugins   {environment.plugin_library() or 'not built'}")
    for backend in BACKENDS:
        lines = []
        for verb, check in (("builds", backend.check_buildable), ("runs", backend.check_runnable)):
            try:
                check()
                lines.append(verb)
            except RestorertError as error:
                lines.append(f"no: {error}")
                break
        version = f" {backend.version()}" if lines[0] == "builds" else ""
        console.print(f"runner {backend.name}{version}: {', '.join(lines)}")
    cache = EngineCache()
    files, size = cache.size()
    console.print(f"cache   {cache.folder}: {files} files, {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
