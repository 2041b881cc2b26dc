"""restorert restore and restorert video."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from restorert.cli.options import (
    add_deploy,
    add_network,
    add_precision,
    add_runner,
    exclude,
    network_of,
    path,
)
from restorert.cli.words import CURES
from restorert.command_line import number, print_error
from restorert.errors import InputError
from restorert.terminal import console, progress_bars

if TYPE_CHECKING:
    from restorert.pictures.grid import Tile
    from restorert.restore.protocol import Engine

# In pixels; no camera makes larger pictures.
_LARGEST_TILE = 65536
_VERIFY = 100


def add_to(commands: Any) -> None:
    """Add the commands to the parser."""
    restore = commands.add_parser("restore", help="restore a picture or a folder of pictures")
    restore.add_argument("source", type=path, help="picture, or folder of pictures")
    restore.add_argument("target", type=path, help="picture, or folder, to write")
    _add_engine(restore)
    restore.set_defaults(command=run_restore, parser=restore)

    video = commands.add_parser("video", help="restore a video, frame by frame")
    video.add_argument("source", type=path, help="video")
    video.add_argument("target", type=path, help=".mp4, .m4v, .mov, .mkv or .webm")
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
        help="an option of the encoder, such as preset=slow; may be repeated",
    )
    fields = video.add_mutually_exclusive_group()
    fields.add_argument(
        "--deinterlace",
        dest="fields",
        action="store_const",
        const="deinterlace",
        default="refuse",
        help="make whole frames of interlaced ones, by FFmpeg's bwdif",
    )
    fields.add_argument(
        "--progressive",
        dest="fields",
        action="store_const",
        const="progressive",
        help="the video is flagged interlaced, but its frames show no combing",
    )
    video.set_defaults(command=run_video, parser=video)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the options that select and run the engine."""
    add_network(parser)
    parser.add_argument(
        "--engine", type=path, help="a built engine; without it and --weights: hinet-tiny"
    )
    add_precision(parser, "int8")
    add_runner(parser, in_memory=True)
    add_deploy(parser)
    parser.add_argument(
        "--verify",
        type=number(int, 0),
        metavar="N",
        help="run every N-th frame in the next safer precision as well, and change to it where the "
        f"two differ; 0: never; default: {_VERIFY} for int8, else 0",
    )
    parser.add_argument(
        "--tile",
        default="auto",
        metavar="auto|authors|off|N",
        help="side of the overlapping crops in pixels; auto: as in the authors' tests; authors: "
        "with their grid and average too",
    )
    parser.add_argument(
        "--overlap",
        type=number(int, 0, _LARGEST_TILE // 2),
        metavar="N",
        help="pixels that neighbouring crops share at least and are blended over; default: an "
        "eighth of --tile",
    )
    parser.add_argument(
        "--self-ensemble",
        type=number(int, 1, 8),
        default=1,
        metavar="1|2|4|8",
        help="average this many flipped and rotated runs: slower, some tenths of a dB better",
    )


def run_restore(options: argparse.Namespace) -> int:
    """Restore a picture or a folder."""
    from restorert import restore_folder, restore_image
    from restorert.restore.video import CONTAINERS as VIDEOS

    tile = tile_of(options.tile)
    if options.source.suffix.lower() in VIDEOS and options.source.is_file():
        raise InputError(f"{options.source} is a video by its name; use: restorert video")
    engine = _engine(options, tile)
    if not options.source.is_dir():
        restore_image(options.source, options.target, engine, tile=tile, overlap=options.overlap)
        return 0
    with progress_bars() as progress:
        report = restore_folder(
            options.source,
            options.target,
            engine,
            tile=tile,
            overlap=options.overlap,
            progress=progress,
            on_error=lambda picture, error: print_error("restorert", error, CURES),
        )
    count = len(report.restored) + len(report.failed)
    others = {"files of other formats": report.other_files, "folders": report.folders}
    skipped = ", ".join(f"{what}: {number}" for what, number in others.items() if number)
    suffix = (f"; skipped {skipped}" if skipped else "") + _verified(engine)
    if report.failed:
        raise InputError(f"{len(report.failed)} of {count} pictures could not be restored{suffix}")
    console().print(f"{count} of {count} pictures restored{suffix}")
    return 0


def run_video(options: argparse.Namespace) -> int:
    """Restore a video."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from restorert import restore_video

    encoder_options = {}
    for text in options.encoder_option:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InputError(f"--encoder-option takes NAME=VALUE, not {text[:40]!r}")
        encoder_options[name] = value
    tile = tile_of(options.tile)
    engine = _engine(options, tile, one_size=True)
    shown = console()
    first = 0.0
    columns = (
        TextColumn("restoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames, {task.fields[rate]:.3g} a second,"),
        TimeLeft(),
    )
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bars:
        task = bars.add_task("restoring", total=None, rate=0.0)

        def show(done: int, of: int) -> None:
            nonlocal first
            first = first or time.perf_counter()
            # The engine is built before the first frame, so time is measured from there.
            seconds = time.perf_counter() - first
            rate = (done - 1) / seconds if seconds else 0.0
            bars.update(task, completed=done, total=of or None, rate=rate)

        started = time.perf_counter()
        report = restore_video(
            options.source,
            options.target,
            engine,
            tile=tile,
            overlap=options.overlap,
            codec=options.codec,
            crf=options.crf,
            options=encoder_options,
            fields=options.fields,
            progress=show,
        )
    seconds = time.perf_counter() - started
    shown.print(
        f"{report.frames} frames in {seconds:.1f} s, including the start of the engine"
        + (f"; left out: {', '.join(report.dropped)}" if report.dropped else "")
        + _verified(engine)
    )
    if report.deinterlaced is not None:
        shown.print(
            f"{options.source} is interlaced from {report.deinterlaced:.1f} s on, and was "
            "deinterlaced from there"
        )
    if report.damaged or report.cut_short:
        ends = ["it ends before the end that it states"] if report.cut_short else []
        parts = [f"{report.damaged} packets could not be read"] if report.damaged else []
        shown.print(f"{options.source} is damaged: {', '.join(parts + ends)}")
    if report.stopped:
        raise InputError(
            f"{options.source} {report.stopped}; the frames before that ({report.frames}) are in "
            f"{options.target}, split the source there for the rest"
        )
    return 0


def _engine(options: argparse.Namespace, tile: Tile, *, one_size: bool = False) -> Engine:
    """The engine of --engine, or one for --weights and --model that is built on demand."""
    from restorert import EngineOnDemand, SelfEnsemble, load_engine

    members = options.self_ensemble
    shown = console()
    engine: Engine
    if options.engine is not None:
        others = ("weights", "model", "precision", "runner", "deploy", "verify")
        exclude(options, "engine", others, "an engine has its own")
        engine = load_engine(options.engine)
        shown.print(engine.describe())
    else:
        engine = EngineOnDemand(
            network_of(options, default="hinet-tiny", random=False),
            precision=options.precision or "fp32",
            runner=options.runner,
            tile=tile,
            # The last four members of eight swap height and width.
            one_size=one_size and members < 8,
            deploy=options.deploy,
            verify=_verify(options),
            building=progress_bars,
        )
    return engine if members == 1 else SelfEnsemble(engine, members)


def _verify(options: argparse.Namespace) -> int:
    if options.verify is not None:
        return int(options.verify)
    return _VERIFY if options.precision == "int8" else 0


def _verified(engine: Engine) -> str:
    """What verification found, for the line at the end; empty where there was none."""
    from restorert import EngineOnDemand, SelfEnsemble

    own = engine.engine if isinstance(engine, SelfEnsemble) else engine
    report = own.report() if isinstance(own, EngineOnDemand) else None
    return f"; engine: {report}" if report and report.verified else ""


def tile_of(text: str) -> Tile:
    """The value of --tile: "auto", "authors", None for off, or pixels."""
    if text == "auto":
        return "auto"
    if text == "authors":
        return "authors"
    if text == "off":
        return None
    digits = text.lstrip("0")
    # Check the length first: Python refuses to parse thousands of digits.
    if digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= _LARGEST_TILE:
        return int(digits)
    raise InputError(
        f"--tile takes auto, authors, off or a number of pixels up to {_LARGEST_TILE}, "
        f"not {text[:20]!r}"
    )
