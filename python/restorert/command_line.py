"""What every command line does alike: mistakes and failures are one line, never a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from restorert.errors import Cure, InputError, RestorertError

__all__ = ["Parser", "guarded", "number", "print_error"]


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def guarded(
    program: str, work: Callable[[], int], cures: Mapping[Cure, str] = MappingProxyType({})
) -> int:
    """The exit status of ``work``, or that of its failure, which is told on stderr.

    ``cures`` are the program's words for what would help.
    """
    try:
        return work()
    except BrokenPipeError:  # the reader of a pipe has gone, as `| head` does
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
    """One line on stderr."""
    told = error.told(cures) if isinstance(error, RestorertError) else str(error)
    text = " ".join(told.split()) or type(error).__name__
    print(f"{program}: error: {text}", file=sys.stderr)


def number(
    kind: type[int] | type[float], least: float, most: float | None = None
) -> Callable[[str], Any]:
    """An argument's ``type``: numbers from ``least`` to ``most``; NaN is none."""

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
