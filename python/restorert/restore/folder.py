"""Restoring a folder of pictures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from restorert.errors import Cure, InputError, RestorertError, reason_of
from restorert.pictures.files import FORMATS, MAX_PIXELS, list_pictures
from restorert.pictures.grid import Tile, overlap_of, tile_side
from restorert.progress import Progress
from restorert.restore.picture import restore_image
from restorert.restore.protocol import Engine


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """What `restore_folder` did.

    Attributes:
        restored: the files written, in alphabetical order.
        failed: pictures of the source that could not be restored, and why.
        other_files: number of files in the source that do not have a picture's suffix.
        folders: number of folders in the source.
    """

    restored: tuple[Path, ...]
    failed: dict[Path, RestorertError]
    other_files: int
    folders: int


def restore_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Tile = "auto",
    overlap: int | None = None,
    quality: int = 95,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    on_error: Callable[[Path, RestorertError], object] | None = None,
) -> FolderReport:
    """Restore every picture of a folder into a file of the same name in another folder.

    Pictures are the files whose suffix is in `restorert.pictures.files.FORMATS`. Folders inside
    ``source`` are not entered. One picture's failure does not stop the others.

    Args:
        source: the folder of pictures.
        target: the folder to write to, made with its parents if missing. Files of the same names
            are replaced; ``source`` itself restores each picture in place.
        engine: see `restorert.restore.Engine`.
        tile, overlap: see `restore_picture`.
        quality: see `write_image`.
        max_pixels: see `read_image`.
        progress: called with "restoring" and the share of pictures done.
        on_error: called as soon as a picture fails, with its path and error; an exception that it
            raises ends the work.

    Returns:
        What was restored, what failed, and what was left alone.

    Raises:
        InputError: ``source`` is not a folder, cannot be read or holds no pictures; ``target``
            cannot be made or has a picture's name; ``tile`` or ``overlap`` is not valid.
        Exception: what the engine raises beyond RestorertError and MemoryError; the pictures
            written before stay.
    """
    source, target = Path(source), Path(target)
    # Else each picture would fail by itself.
    overlap_of(tile, tile_side(tile, engine.spec), overlap)
    if not source.is_dir():
        raise InputError(f"{source} is not a folder", Cure.PICTURES)
    try:
        pictures, entries = list_pictures(source), list(source.iterdir())
    except OSError as error:
        raise InputError(f"cannot read the folder {source}: {reason_of(error)}") from None
    if not pictures:
        raise InputError(f"the folder {source} holds no pictures: {', '.join(FORMATS)}")
    if target.suffix.lower() in FORMATS and not target.is_dir():
        raise InputError(f"{source} is a folder, {target} a picture's name; name a folder to write")
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {target}: {reason_of(error)}") from None
    restored: list[Path] = []
    failed: dict[Path, RestorertError] = {}
    for done, picture in enumerate(pictures, 1):
        written = target / picture.name
        try:
            restore_image(
                picture,
                written,
                engine,
                tile=tile,
                overlap=overlap,
                quality=quality,
                max_pixels=max_pixels,
            )
            restored.append(written)
        except RestorertError as error:
            if str(picture) not in error.args[0]:  # an engine does not know whose frames it has
                error.args = (f"{picture}: {error.args[0]}",)
            failed[picture] = error
            if on_error:
                on_error(picture, error)
        if progress:
            progress("restoring", done / len(pictures))
    folders = sum(entry.is_dir() for entry in entries)
    others = len(entries) - folders - len(pictures)
    return FolderReport(tuple(restored), failed, others, folders)
