"""How long work tells how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done, 0 to 1."""

T = TypeVar("T")


@contextlib.contextmanager
def stage(what: str, progress: Progress | None) -> Iterator[None]:
    """Work whose share is not known until it is done."""
    if progress:
        progress(what, 0.0)
    yield
    if progress:
        progress(what, 1.0)


def counted(items: Sequence[T], what: str, progress: Progress | None, done: int = 0) -> Iterator[T]:
    """The items after the first ``done``; ``progress`` is told before each, and at the end."""
    for index in range(done, len(items)):
        if progress:
            progress(what, index / len(items))
        yield items[index]
    if progress:
        progress(what, 1.0)
