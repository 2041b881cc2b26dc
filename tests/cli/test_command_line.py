"""What every command line does alike."""

from __future__ import annotations

import argparse
import math

import pytest

from restorert.command_line import Parser, guarded, number
from restorert.errors import InputError


def _raises(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("a\nb"), 2, "tool: error: a b\n"),
        (MemoryError(), 2, "tool: error: MemoryError\n"),
        (OSError(28, "No space left on device"), 2, "tool: error: [Errno 28] No space left on "),
        (KeyboardInterrupt(), 130, "tool: stopped\n"),
    ],
)
def test_failures_are_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    assert guarded("tool", lambda: _raises(error)) == status
    told = capsys.readouterr().err
    assert told.startswith(said)
    assert told.count("\n") == 1


def test_bugs_are_not_hidden() -> None:
    assert guarded("tool", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        guarded("tool", lambda: 1 // 0)


def test_mistakes_name_the_cure() -> None:
    with pytest.raises(InputError, match="unrecognized arguments: --x; see: tool --help"):
        Parser(prog="tool").parse_args(["--x"])


@pytest.mark.parametrize("text", ["0", "1025", "-1", "1.5", "x", "", "nan", "9" * 5000])
def test_numbers_out_of_bounds(text: str) -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match="must be a whole number from 1 to 1024, not"
    ):
        number(int, 1, 1024)(text)


def test_numbers() -> None:
    assert number(int, 1, 1024)("1024") == 1024
    assert number(float, 0)("inf") == math.inf
    for text in ("nan", "-0.1"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a number >= 0, not"):
            number(float, 0)(text)
