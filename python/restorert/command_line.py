"""Shared by all command lines: errors are printed as one line, never as a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from restorert.errors import Cure, InputError, RestorertError


class Parser(argparse.ArgumentParser):
    """Reports a usage error on one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def guarded(
    program: str, work: Callable[[], int], cures: Mapping[Cure, str] = MappingProxyType({})
) -> int:
    """The exit status of ``work``; if it fails, print the error and return the status for it.

    ``cures`` are the program's words for each `Cure`.
    """
    try:
        return work()
    except BrokenPipeError:  # the reading end of the pipe was closed, as by `| head`
        sys.stdout = None  # type: ignore[assignment]
        return 141
    except (RestorertError, OSError, MemoryError) as error:
        print_error(program, error, cures)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130


def print_error(
    program: str, error: Exception, cures: Mapping[Cure, str] = MappingProxyType({})
) -> None:
    """Print an error on one line to stderr."""
    message = error.worded(cures) if isinstance(error, RestorertError) else str(error)
    text = " ".join(message.split()) or type(error).__name__
    print(f"{program}: error: {text}", file=sys.stderr)


def number(
    kind: type[int] | type[float], least: float, most: float | None = None
) -> Callable[[str], Any]:
    """An argparse ``type`` that accepts numbers from ``least`` to ``most``, but not NaN."""

    def convert(text: str) -> Any:
        bounds = f">= {least}" if most is None else f"from {least} to {most}"
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value or (most is not None and value > most):
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} {bounds}, not {text[:20]!r}")
        return value

    return convert
