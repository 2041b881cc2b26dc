"""What can be known of a video before the work: whether it is whole, and what comes later."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from restorert.restore.video.frames import load_av

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

# Seconds for reading from the start, and for looking at the rest.
_AT_START, _ELSEWHERE = 1.0, 2.0
_PLACES = 32

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_short(path: Path) -> bool:
    """Whether a Matroska or MP4 file ends before the end that it states itself.

    Nothing is estimated: a file that states no size, as while it is recorded, is never cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if start[:4] == _EBML:
            return _matroska_end(file) > size
        if start[4:] in (b"ftyp", b"wide", b"moov", b"mdat", b"free", b"skip"):
            return _mp4_end(file, size) > size
    return False


def _matroska_end(file: BinaryIO) -> int:
    """Where the first segment ends; 0 if that is unknown."""
    for wanted in (_EBML, _SEGMENT):
        if file.read(4) != wanted:
            return 0
        first = file.read(1)
        if not first or not first[0]:
            return 0
        length = 9 - first[0].bit_length()
        rest = file.read(length - 1)
        size = int.from_bytes(bytes([first[0] & (0xFF >> length)]) + rest, "big")
        if size == (1 << 7 * length) - 1:  # all ones: not known
            return 0
        if wanted == _SEGMENT:
            return file.tell() + size
        file.seek(size, 1)
    return 0


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the last of the boxes at the top level ends."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or not kind.isascii():  # 0: to the end of the file
            return 0
        at += length
    return at


def frames_ahead(container: InputContainer, index: int) -> Iterator[VideoFrame]:
    """Key frames of a stream: the first ones, then some spread over the rest of the file.

    Takes at most about three seconds. What cannot be decoded or sought is left out.
    """
    errors = (load_av().FFmpegError, ValueError)
    video: Any = container.streams[index]
    video.codec_context.skip_frame = "NONKEY"
    ends = time.monotonic() + _AT_START
    try:
        for packet in container.demux(video):
            with contextlib.suppress(*errors):
                yield from video.decode(packet)
            if time.monotonic() > ends:
                break
        else:
            return  # all of them
    except errors:
        return
    ends = time.monotonic() + _ELSEWHERE
    start, duration = container.start_time or 0, container.duration or 0
    for place in range(1, _PLACES):
        if not duration or time.monotonic() > ends:
            return
        try:
            container.seek(start + duration * place // _PLACES)
            yield next(container.decode(video))
        except (*errors, StopIteration):
            continue
