"""Atomic file writes: neither a reader nor a crash ever leaves half a file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from restorert.errors import InputError, RestorertError


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``: renamed over it on success, removed on failure.

    The temporary file has ``path``'s suffix, since many writers choose the format by it. An
    existing ``path`` is untouched until the rename and keeps its permissions; a symbolic link
    still points to its target, whose content is replaced.

    Raises:
        OSError: the folder does not exist or cannot be written, or ``path`` is a folder or device.
    """
    target, temporary = _create_beside(path)
    try:
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        # Without this a crash soon after the rename could leave an empty file under the name.
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode & 0o7777)  # a writer that renames its own file changes the mode
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], error: type[RestorertError] = InputError
) -> Iterator[Path]:
    """`replace_atomically` for a file that the user named: raises ``error``, one line.

    Raises:
        RestorertError: of type ``error``; the file cannot be written.
    """
    try:
        with replace_atomically(path) as temporary:
            yield temporary
    except OSError as cause:
        raise error(f"cannot write {os.fspath(path)}: {cause.strerror or cause}") from None


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError of `replace_atomically` for ``path`` now, before any work is done."""
    _create_beside(path)[1].unlink()


def check_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Raise, before any work is done, if ``path`` cannot be written or is also an input.

    Args:
        path: the file to write.
        inputs: files that are read; None and missing files are ignored.

    Raises:
        InputError: the message names the file and the reason.
    """
    target = Path(path)
    reason: object = ""
    try:
        if target.is_dir():
            reason = "Is a directory"
        elif not target.parent.is_dir():
            reason = "No such folder"
        elif target.exists() and any(
            target.samefile(source) for source in inputs if source and Path(source).exists()
        ):
            reason = "it is the input; name another file"
        else:
            check_replaceable(target)
    except OSError as error:
        reason = error.strerror or error
    if reason:
        raise InputError(f"cannot write {target}: {reason}")


def _create_beside(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """``path`` with symbolic links resolved, and a new empty file next to it."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        # Not Path.exists: some Python versions return False for a name that is too long.
        if not stat.S_ISREG(target.stat().st_mode):
            raise OSError(f"{target} exists and is not a regular file")
    temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}{target.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return target, temporary


def _prefix(target: Path) -> str:
    # Hidden. Truncated, so that the suffix still fits if the name is near the length limit.
    return f".{target.stem[:100]}~"


def remove_remains(path: Path) -> None:
    """Remove temporary files left by processes killed inside `replace_atomically` of ``path``.

    The caller must hold a lock on ``path``: a process still writing would lose its file.
    """
    for remains in path.parent.iterdir():
        if remains.name.startswith(_prefix(path)) and remains.suffix == path.suffix:
            remains.unlink()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
