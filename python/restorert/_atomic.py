"""Replacing a file as a whole: readers see the old content or the new, never a half."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` when the block ends well.

    The temporary file is on the same file system, so the rename is atomic, and it is removed when
    the block raises. A symbolic link keeps pointing to its target, whose content is replaced; an
    existing file keeps its permissions, a new one gets those of the umask.

    Raises:
        OSError: the folder is missing or cannot be written to, or ``path`` is a folder or device.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{target} exists and is not a regular file")
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        # Without this a crash soon after the rename could leave an empty file under the new name.
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode & 0o7777)  # writers that rename by themselves leave another
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
