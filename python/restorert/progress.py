"""Progress reports of long-running work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[str, float], None]
"""Called with the name of the current step and the fraction done, 0 to 1."""

T = TypeVar("T")


@contextlib.contextmanager
def stage(what: str, progress: Progress | None) -> Iterator[None]:
    """Report the start and the end of work that cannot report how far it is."""
    if progress:
        progress(what, 0.0)
    yield
    if progress:
        progress(what, 1.0)


def counted(items: Sequence[T], what: str, progress: Progress | None, done: int = 0) -> Iterator[T]:
    """Iterate the items after the first ``done``, reporting before each and at the end."""
    for index in range(done, len(items)):
        if progress:
            progress(what, index / len(items))
        yield items[index]
    if progress:
        progress(what, 1.0)
