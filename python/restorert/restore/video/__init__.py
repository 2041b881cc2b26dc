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
from typing import TypeVar

from restorert.errors import VideoError
from restorert.files import check_output, replace_atomically
from restorert.pictures.files import MAX_PIXELS
from restorert.pictures.grid import Tile
from restorert.restore.picture import restore_picture
from restorert.restore.protocol import Engine, memory_errors_of
from restorert.restore.video.decode import Frame, Item, open_video
from restorert.restore.video.encode import CONTAINERS, Encoder, Writer
from restorert.restore.video.frames import load_av

__all__ = ["CONTAINERS", "VideoReport", "load_av", "restore_video"]

_AHEAD = 4
"""How many items each stage works ahead of the next."""


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: restored and written.
        expected: number of frames that the source states, or 0 if it states none.
        damaged: packets of the source that could not be decoded, and frames decoded in part.
        dropped: streams of the source that are not in the result, in words.
    """

    frames: int
    expected: int
    damaged: int
    dropped: tuple[str, ...]

    @property
    def incomplete(self) -> bool:
        """Whether frames of the source are missing: it is cut short or damaged."""
        # Durations are rounded, and edit lists hide a few frames.
        return bool(self.damaged) or self.frames < 0.98 * self.expected - 2


def restore_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Tile = "auto",
    codec: str | None = None,
    crf: int | None = None,
    options: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Restore a video file into another.

    Frames keep their times (also where they are not evenly spaced), size, pixel shape, rotation,
    bit depth, chroma subsampling, colour matrix, range, primaries and transfer function where the
    encoder has them. Sound, subtitles, chapters and metadata are copied. The network sees RGB in
    [0, 1], through the matrix and range that the file names; where it names none, BT.709 from 720
    lines on and BT.601 below, limited range, as players do. Above 8 bits a channel, 16-bit RGB.

    Args:
        source: the video; its first video stream is restored.
        target: .mp4, .m4v, .mov, .mkv or .webm; replaced only when the new file is complete.
        engine: see `restorert.restore.Engine`.
        tile: see `restore_picture`.
        codec: FFmpeg's name of the encoder; None is libx264, for .webm libvpx-vp9.
        crf: constant rate factor, lower is better; None is 16 for libx264, 18 for libx265, 20 for
            libvpx-vp9 and libsvtav1.
        options: more of the encoder's own options, such as ``{"preset": "slow"}``.
        max_pixels: the largest width times height that is accepted.
        progress: called with the number of frames done and of all frames, 0 if unknown.

    Raises:
        VideoError: ``source`` is not a video, is damaged or interlaced, or ``target``'s container
            or encoder cannot hold its streams.
        InputError: ``target`` cannot be written; the encoder or an option does not exist; ``tile``.
        RunnerUnavailableError: PyAV is not installed.
        DeviceMemoryError: not enough memory for a frame.
        RestorertError: what `restore_picture` raises.
        OSError: the disk is full.
    """
    source, target = Path(source), Path(target)
    load_av()
    check_output(target)
    encoder = Encoder.choose(target, codec, crf, options or {})
    with open_video(source, max_pixels) as reader:

        def restored() -> Generator[Item, None, None]:
            done = 0
            with contextlib.closing(_in_thread(reader.items())) as items:
                for item in items:
                    if isinstance(item, Frame):
                        picture = restore_picture(item.picture, engine, tile=tile)
                        item = dataclasses.replace(item, picture=picture)
                        done += 1
                        if progress:
                            progress(done, max(reader.expected, done) if reader.expected else 0)
                    yield item

        with replace_atomically(target) as temporary, memory_errors_of(source):
            writer = Writer(reader, target, temporary, encoder)
            with contextlib.closing(_in_thread(restored())) as items:
                frames = writer.write(items)
            if not frames:
                raise VideoError(f"{source}: none of its frames can be decoded; get it again")
    return VideoReport(frames, reader.expected, reader.damaged, reader.dropped)


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
