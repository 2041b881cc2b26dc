"""Restore pictures and videos, build engines, calibrate INT8 and check the installation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from restorert.cli import build, classify, doctor, inspect, networks, restore
from restorert.cli.words import CURES
from restorert.command_line import Parser, guarded
from restorert.terminal import messages
from restorert.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. No traceback reaches the user."""

    def work() -> int:
        options = parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)

    with messages():
        return guarded("restorert", work, CURES)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``command`` of its result runs the given command."""
    top = Parser(prog="restorert", description=__doc__)
    top.add_argument("--version", action="version", version=f"restorert {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for group in (restore, build, inspect, classify, networks, doctor):
        group.add_to(commands)
    return top
