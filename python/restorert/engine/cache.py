"""The cache of engines and ONNX files, keyed on everything that affects their content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from restorert.errors import BuildError
from restorert.files import remove_remains


def cache_folder() -> Path:
    """``$RESTORERT_CACHE``, else ``$XDG_CACHE_HOME/restorert``, else ``~/.cache/restorert``.

    Raises:
        BuildError: neither is set and the user has no home directory (as in some containers).
    """
    if chosen := os.environ.get("RESTORERT_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "restorert"
    try:
        return Path.home() / ".cache" / "restorert"
    except RuntimeError:
        raise BuildError(
            "no cache folder: this user has no home directory; set one with RESTORERT_CACHE"
        ) from None


def cache_key(facts: dict[str, Any]) -> str:
    """Hex SHA-256 of the facts as canonical JSON."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class EngineCache:
    """A folder of files named by key, which several processes may use at once.

    Each file is built under its own lock and appears by a rename, so a reader sees either no file
    or a complete one; a process that waited for the lock reuses the finished file.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder()

    def path(self, label: str, facts: dict[str, Any], suffix: str) -> Path:
        """The path of the file with these facts; ``label`` makes its name readable."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", label)
        return self.folder / f"{readable}-{cache_key(facts)[:20]}{suffix}"

    def make(self) -> None:
        """Create the folder if it is missing.

        Raises:
            BuildError: it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Hold the lock of one file."""
        self.make()
        try:
            lock = FileLock(f"{path}.lock")
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def get_or_build(
        self, path: Path, valid: Callable[[Path], bool], build: Callable[[Path], None]
    ) -> Path:
        """Return ``path`` after building it with ``build(path)``, unless ``valid(path)``."""
        with self.locked(path):
            if not valid(path):
                try:
                    remove_remains(path)
                    build(path)
                except OSError as error:
                    raise self._unwritable(error) from None
        return path

    def _unwritable(self, error: OSError) -> BuildError:
        return BuildError(
            f"cannot write the cache folder {self.folder} ({error.strerror or error}); "
            "choose another with RESTORERT_CACHE"
        )

    def size(self) -> tuple[int, int]:
        """Number of files in the cache, and their total bytes."""
        files = [f for f in self.folder.glob("*") if f.is_file()] if self.folder.is_dir() else []
        return len(files), sum(f.stat().st_size for f in files)
