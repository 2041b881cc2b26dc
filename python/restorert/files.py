"""Writing files so that no reader, and no crash, ever meets half of one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from restorert.errors import InputError, RestorertError

__all__ = [
    "check_output",
    "check_replaceable",
    "remove_remains",
    "replace_atomically",
    "sha256_of",
    "writing",
]


@contextlib.contextmanager
def replace_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed over it on success, removed on any failure.

    The file keeps ``path``'s suffix, since many writers choose the format by it. An existing
    ``path`` stays as it was until the rename and keeps its permissions; a symbolic link keeps
    pointing to its target, whose content is replaced.

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
        temporary.chmod(mode & 0o7777)  # writers that rename by themselves leave another
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], error: type[RestorertError] = InputError
) -> Iterator[Path]:
    """`replace_atomically` of a file that the user named: a failure is one line.

    Raises:
        RestorertError: ``error``; the file cannot be written.
    """
    try:
        with replace_atomically(path) as temporary:
            yield temporary
    except OSError as cause:
        raise error(f"cannot write {os.fspath(path)}: {cause.strerror or cause}") from None


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise before the work what `replace_atomically` of ``path`` would raise after it.

    Raises:
        OSError: as `replace_atomically`.
    """
    _create_beside(path)[1].unlink()


def check_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str] | None) -> None:
    """Refuse, before the work, a file that cannot be written or that the work reads.

    Args:
        path: the file to write.
        inputs: files that are read; None and those that do not exist are passed over.

    Raises:
        InputError: the message says which and why.
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
    """Where ``path`` leads to, and a new empty file beside it."""
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        # Not Path.exists, which some Pythons let pass over a name that is too long.
        if not stat.S_ISREG(target.stat().st_mode):
            raise OSError(f"{target} exists and is not a regular file")
    temporary = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}{target.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return target, temporary


def _prefix(target: Path) -> str:
    # Hidden; cut, since a name near the limit of the file system leaves no room for more.
    return f".{target.stem[:100]}~"


def remove_remains(path: Path) -> None:
    """Remove what processes left that were killed inside `replace_atomically` of ``path``.

    Only for who holds a lock on ``path``: a process still writing would lose its file.
    """
    for remains in path.parent.iterdir():
        if remains.name.startswith(_prefix(path)) and remains.suffix == path.suffix:
            remains.unlink()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _sha256_in_chunks(stream)
        )


def _sha256_in_chunks(stream: object) -> str:
    # hashlib.file_digest came with Python 3.11.
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(chunk)
    return digest.hexdigest()
