"""From a video file to the restored video file, every frame through the engine.

PyAV (FFmpeg's libraries) reads and writes. Decoding, restoring and encoding overlap, each in its
own thread, so that the engine waits for neither.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, get_args

from restorert.errors import InputError, VideoError
from restorert.files import check_output, replace_atomically
from restorert.pictures.files import MAX_PIXELS
from restorert.pictures.grid import Tile, overlap_of, tile_side
from restorert.restore.picture import restore_picture
from restorert.restore.protocol import Engine, memory_errors_of
from restorert.restore.video.decode import Frame, Item, open_video
from restorert.restore.video.encode import CONTAINERS, Encoder, Writer
from restorert.restore.video.fields import Fields
from restorert.restore.video.frames import load_av

__all__ = ["CONTAINERS", "VideoReport", "load_av", "restore_video"]

_AHEAD = 4
"""How many items each stage works ahead of the next."""


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: restored and written.
        damaged: packets of the source that could not be decoded, and frames decoded in part.
        dropped: streams and metadata of the source that are not in the result, in words.
        cut_short: whether the source ends before the end that it states.
        stopped: why frames at the end of the source were not restored, in words; or "".
        deinterlaced: if frames were refused by ``fields="refuse"`` only after others had been
            restored, the time in seconds from which on interlaced frames were deinterlaced.
    """

    frames: int
    damaged: int
    dropped: tuple[str, ...]
    cut_short: bool = False
    stopped: str = ""
    deinterlaced: float | None = None

    @property
    def incomplete(self) -> bool:
        """Whether frames of the source are missing: it is damaged or cut short, or changes."""
        return bool(self.damaged or self.cut_short or self.stopped)


def restore_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Tile = "auto",
    overlap: int | None = None,
    codec: str | None = None,
    crf: int | None = None,
    options: Mapping[str, str] | None = None,
    fields: Fields = "refuse",
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Restore a video file into another.

    Frames keep their times (also where they are not evenly spaced), counted from the first stream's
    start, size, pixel shape, rotation, bit depth, chroma subsampling, colour matrix, range,
    primaries and transfer function where the encoder has them; else they are converted, and tagged
    as what they are. Sound, subtitles, fonts, chapters, metadata and dispositions are copied. The
    network sees RGB in [0, 1], through the matrix and range that the file names; where it names
    none, BT.709 from 720 lines on and BT.601 below, limited range (grey: full), as players do.
    Above 8 bits a channel, 16-bit RGB.

    Args:
        source: the video; its first video stream is restored.
        target: .mp4, .m4v, .mov, .mkv or .webm; replaced only when the new file is complete.
        engine: see `restorert.restore.Engine`.
        tile, overlap: see `restore_picture`.
        codec: FFmpeg's name of the encoder; None is libx264, for .webm libvpx-vp9.
        crf: constant rate factor, lower is better; None is 16 for libx264, 18 for libx265, 20 for
            libvpx-vp9 and libsvtav1.
        options: more of the encoder's own options, such as ``{"preset": "slow"}``.
        fields: for frames that are flagged interlaced: "refuse" the video, take them as
            "progressive" (a film in an interlaced stream shows no combing), or "deinterlace" them
            by FFmpeg's bwdif, each into one frame. Frames that are not flagged stay as they are.
        max_pixels: the largest width times height that is accepted.
        progress: called with the number of frames done and of all frames, 0 if unknown.

    Raises:
        VideoError: ``source`` is not a video, none of it can be decoded, it is interlaced, or
            ``target``'s container or encoder cannot hold its streams. What follows from the first
            frame, and from a look at frames all over the file, is raised before ``engine`` runs.
        InputError: ``target`` cannot be written; the encoder or an option does not exist; ``tile``,
            ``overlap`` or ``fields`` is not valid.
        RunnerUnavailableError: PyAV is not installed.
        DeviceMemoryError: not enough memory for a frame.
        RestorertError: what `restore_picture` raises.
        OSError: the disk is full.
    """
    source, target = Path(source), Path(target)
    if fields not in get_args(Fields):
        raise InputError(f"fields is {fields!r}; it is one of {', '.join(get_args(Fields))}")
    load_av()
    overlap_of(tile, tile_side(tile, engine.spec), overlap)
    check_output(target)
    encoder = Encoder.choose(target, codec, crf, options or {})
    with open_video(source, max_pixels, fields) as reader:
        with memory_errors_of(source):
            first, items = _first_frame(reader.items())
        if first is None:
            raise VideoError(f"{source}: none of its frames can be decoded; get it again")

        def restored() -> Generator[Item, None, None]:
            done = 0
            with contextlib.closing(_in_thread(items)) as decoded:
                for item in decoded:
                    if isinstance(item, Frame):
                        picture = restore_picture(item.picture, engine, tile=tile, overlap=overlap)
                        item = dataclasses.replace(item, picture=picture)
                        done += 1
                        if progress:
                            progress(done, max(reader.expected, done) if reader.expected else 0)
                    yield item

        with replace_atomically(target) as temporary, memory_errors_of(source):
            writer = Writer(reader, target, temporary, encoder)
            with contextlib.closing(_in_thread(restored())) as results:
                frames = writer.write(first, results)
    return VideoReport(
        frames,
        reader.damaged,
        (*reader.dropped, *writer.dropped, *sorted(reader.lost)),
        reader.cut_short,
        reader.stopped,
        reader.deinterlaced,
    )


def _first_frame(
    items: Generator[Item, None, None],
) -> tuple[Frame | None, Generator[Item, None, None]]:
    """The first frame, and all items, those that have been taken included."""
    early: list[Item] = []
    first: Frame | None = None
    for item in items:
        early.append(item)
        if isinstance(item, Frame):
            first = item
            break

    def again() -> Generator[Item, None, None]:
        while early:
            yield early.pop(0)
        yield from items

    return first, again()


_T = TypeVar("_T")


def _in_thread(items: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """Run a generator in a thread of its own, up to `_AHEAD` items ahead of the consumer.

    Its exceptions are raised in the consumer. Closing this one closes it and ends the thread.
    """
    pool = ThreadPoolExecutor(1, "restorert-video")
    ahead = collections.deque(pool.submit(next, items, None) for _ in range(_AHEAD))
    try:
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()
