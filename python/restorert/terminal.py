"""Messages and progress bars on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from restorert.progress import Progress


def console() -> Console:
    """A rich console on standard error that prints text verbatim, brackets included."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a callback that draws a bar per phase; no bars if stderr is not a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    shown = console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    ) as bars:
        tasks: dict[str, Any] = {}

        def show(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=share)

        yield show


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Print the library's log records to standard error, one line each."""
    log = logging.getLogger("restorert")
    handler, level = logging.StreamHandler(sys.stderr), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
