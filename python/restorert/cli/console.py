"""What commands show on the terminal while they work, and the command line's words for cures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from restorert.errors import Cure

if TYPE_CHECKING:
    from rich.console import Console

    from restorert.progress import Progress

CURES = {
    Cure.BUILD: "build it again with: restorert build",
    Cure.CALIBRATE: "make one with: restorert calibrate --images FOLDER -o FILE.onnx",
    Cure.EXPORT: "make one with: restorert export",
    Cure.KEEP_LAYERS: "--keep-fp16 auto keeps the layers that harm most in fp16, "
    "--limit changes the limit",
    Cure.OTHER_RUNNER: "--runner auto takes one that works here; see: restorert doctor",
    Cure.PICTURES: "for pictures use: restorert restore",
    Cure.TILES: "restore in smaller tiles: --tile N",
}


def console() -> Console:
    """Standard error as it is written: brackets in a file's name are no markup."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """A callback that draws a bar for each phase; none where stderr is not a terminal."""
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
