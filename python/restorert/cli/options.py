"""Options shared by several commands."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from restorert.backends import BACKENDS
from restorert.command_line import number
from restorert.errors import InputError
from restorert.terminal import console

if TYPE_CHECKING:
    from restorert.networks import RestorationNetwork


def path(text: str) -> Path:
    """An argparse ``type``: a path that is not empty."""
    # Path("") is the current folder, which is not what an unset shell variable should mean.
    if not text:
        raise argparse.ArgumentTypeError("an empty path; name a file or a folder")
    return Path(text)


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --model and --weights."""
    parser.add_argument("--model", metavar="NAME", help="a name from `restorert networks`")
    parser.add_argument(
        "--weights", type=path, metavar="FILE", help=".pth, .safetensors, TensorFlow prefix"
    )


def add_precision(parser: argparse.ArgumentParser, *more: str) -> None:
    """Add --precision and its short forms."""
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


def add_deploy(parser: argparse.ArgumentParser) -> None:
    """Add --no-deploy."""
    parser.add_argument(
        "--no-deploy",
        dest="deploy",
        action="store_false",
        help="keep the authors' layers instead of equivalent ones that move fewer bytes",
    )


def add_runner(parser: argparse.ArgumentParser, *, in_memory: bool) -> None:
    """Add --runner; ``in_memory`` includes the runners that have no engine files."""
    names = [b.name for b in BACKENDS if in_memory or b.takes == "onnx"]
    parser.add_argument(
        "--runner", default="auto", metavar="NAME", help=f"auto or one of {', '.join(names)}"
    )


def _noise(text: str) -> str:
    """An argparse ``type``: the condition of noise of a standard deviation from 0 to 255."""
    sigma = number(float, 0, 255)(text)
    return f"sigma {sigma:g}" if sigma else "given"


PICTURES = ("method", "percentile", "patches", "conditions", "keep_fp16", "limit")
"""The arguments that `add_pictures` adds."""


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the options for calibrating INT8 on pictures."""
    parser.add_argument(
        "--method",
        choices=("minmax", "entropy", "percentile", "mse"),
        help="how ranges are chosen from the observed values; default mse",
    )
    parser.add_argument("--percentile", type=float, help="for --method percentile; default 99.99")
    parser.add_argument(
        "-n", "--patches", type=number(int, 1), metavar="N", help="patches to use; default 64"
    )
    parser.add_argument(
        "--conditions",
        action="append",
        default=[],
        metavar="NAME",
        help="what the pictures are degraded by, for calibrating and for judging: sigma 25, "
        "jpeg 40, sigma 15 + jpeg 50, motion 9, rain, ..., clean, or given for pictures as they "
        "are; may be repeated, or separated by commas; default: all that the network is for",
    )
    parser.add_argument(
        "--noise",
        dest="conditions",
        action="append",
        type=_noise,
        metavar="SIGMA",
        help='same as --conditions "sigma SIGMA"',
    )
    parser.add_argument(
        "--keep-fp16",
        action="append",
        default=[],
        metavar="auto|LAYER",
        help="keep a layer in fp16; auto: as few as the limit allows; may be repeated",
    )
    parser.add_argument(
        "--limit", type=float, metavar="DB", help="maximum loss of PSNR; default for int8: 0.1"
    )


def check_pictures(options: argparse.Namespace) -> None:
    """Check the options of `add_pictures` beyond what the parser can."""
    from restorert.precision import check_limit

    if options.limit is not None:
        check_limit(options.limit, "--limit")
    if options.method != "percentile":
        refuse(options, ("percentile",), "without --method percentile")
    if "auto" in options.keep_fp16 and len(options.keep_fp16) > 1:
        raise InputError("--keep-fp16 takes auto or layers, not both")


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, str]:
    """The arguments among ``names`` that differ from their defaults: name -> flag."""
    found = {}
    for name in names:
        actions = [a for a in options.parser._actions if a.dest == name]
        value = getattr(options, name)
        if actions and value != actions[0].default:
            flag = actions[0].option_strings[0]
            found[name] = f"{flag} {value}" if len(actions) > 1 and isinstance(value, str) else flag
    return found


def refuse(options: argparse.Namespace, names: Collection[str], where: str) -> None:
    """Reject arguments that were given but would have no effect."""
    for flag in given(options, names).values():
        raise InputError(f"{flag} has no meaning {where}")


def exclude(options: argparse.Namespace, name: str, others: Collection[str], why: str = "") -> None:
    """Reject the arguments ``others`` together with the argument ``name``."""
    (flag,) = given(options, (name,)).values()
    for other in given(options, others).values():
        raise InputError(f"{flag} excludes {other.split()[0]}{why and f': {why}'}")


def check_outputs(options: argparse.Namespace, *suffixes: str) -> None:
    """Reject an --output that, with any of the suffixes, is not writable or is also an input."""
    from restorert.files import check_output
    from restorert.quantize.patches import picture_files

    names = ("weights", "onnx", "recipe", "cache")
    inputs = [getattr(options, name, None) for name in names]
    if getattr(options, "images", None) is not None:
        inputs += picture_files(options.images)
    for suffix in suffixes:
        check_output(f"{options.output}{suffix}", *inputs)


def network_of(
    options: argparse.Namespace, *, default: str | None = None, random: bool = True
) -> RestorationNetwork:
    """The network of --weights and --model; prints which weights a bare name uses.

    Without ``random`` it must be a network whose weights are known.
    """
    from restorert import create_network, load_network, network_spec
    from restorert.weights import shipped_weights

    if options.weights is not None:
        return load_network(options.weights, name=options.model)
    name = options.model or default
    if name is None:
        raise InputError("name a network with --model NAME or a checkpoint with --weights FILE")
    task, shipped = network_spec(name).task, shipped_weights().get(name)
    if shipped is not None:
        console().print(f"no --weights: {name} with the package's own weights, for {task}")
        return load_network(shipped, name=name)
    if not random:
        raise InputError(
            f"no weights of {name} come with the package: give a checkpoint with --weights FILE or "
            "a built engine with --engine FILE"
        )
    network = create_network(name)
    console().print(f"random weights of {name}: give --weights FILE")
    return network
