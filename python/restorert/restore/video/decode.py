"""Reading a video: decoded frames, and the packets that are copied, in file order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restorert.errors import Cure, VideoError, reason_of
from restorert.pictures.picture import Picture
from restorert.restore.video.ahead import frames_ahead, is_cut_short
from restorert.restore.video.colour import Colour
from restorert.restore.video.convert import chroma_location, to_picture
from restorert.restore.video.fields import Deinterlacer, Fields
from restorert.restore.video.frames import is_rgb, is_subsampled, load_av
from restorert.restore.video.hdr import LIGHT, LOST, MASTERING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Self-contained formats only: a playlist may name any file of the machine.
_DEMUXERS = (
    "asf,avi,dnxhd,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,vc1,yuv4mpegpipe"
)

# Formats that may begin anywhere, also between two key frames.
_STREAMS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "vc1", "obu")

# Codecs whose packets hold one frame each, which is shown at the packet's time.
_ONE_EACH = ("h264", "hevc")

# Seconds that times may go back before another recording is thought to begin.
_RESTART = Fraction(1, 2)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame between decoder and encoder, as stored: the display matrix is not applied.

    Attributes:
        pts, duration: in units of the stream's time base; 0 is the start of the file.
        location: where its chroma lies, see `chroma_location`.
        side: HDR10's side data by FFmpeg's names.
    """

    picture: Picture
    pts: int
    duration: int
    pixel_format: str
    colour: Colour
    location: str
    matrix: tuple[int, ...] | None
    side: dict[str, bytes]


Item = Any
"""A `Frame`, or a packet to copy."""


@contextlib.contextmanager
def open_video(source: Path, max_pixels: int, fields: Fields = "refuse") -> Iterator[Reader]:
    """A reader of the file's first video stream.

    Raises:
        VideoError: it cannot be read, or a look ahead finds interlaced frames (with "refuse") or
            frames of another size.
    """
    if source.is_dir():
        raise VideoError(f"{source} is a folder, not a video")
    if not source.exists():
        raise VideoError(f"{source}: no such file; check the path")
    with _open(source) as container:
        video = _video_of(container, source)
        size = f"{video.width}x{video.height}"
        if video.width * video.height > max_pixels:
            raise VideoError(f"{source} is {size}, more than {max_pixels} pixels a frame")
        with _open(source) as another:
            start = (container.start_time or 0) / 1e6
            _check_ahead(frames_ahead(another, video.index), source, fields, start)
        video.thread_type = "AUTO"
        yield Reader(container, video, source, fields)


def _open(source: Path) -> Any:
    av = load_av()
    try:
        return av.open(
            f"file:{source}",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file", "format_whitelist": _DEMUXERS},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{source} cannot be read as a video ({reason_of(error)})", Cure.PICTURES
        ) from None


def _video_of(container: InputContainer, source: Path) -> VideoStream:
    cover = load_av().stream.Disposition.attached_pic
    found = [s for s in container.streams.video if not s.disposition & cover]
    if not found:
        held = named(container.streams) or "nothing"
        raise VideoError(f"{source} holds no video, only {held}")
    for video in found:
        if video.codec_context is not None:
            return video
    raise VideoError(f"{source}: no decoder for its video; convert it to another codec")


def _check_ahead(frames: Iterator[VideoFrame], source: Path, fields: Fields, start: float) -> None:
    """Raise what would stop or spoil the work later; ``start``: of the file, in seconds."""
    size: tuple[int, int] | None = None
    for frame in frames:
        if frame.interlaced_frame and fields == "refuse":
            at = (frame.time or start) - start
            raise _interlaced(source, f" at {at:.1f} s" if at >= 0.1 else "")
        size = size or (frame.width, frame.height)
        if size != (frame.width, frame.height):
            raise VideoError(f"{source} {_changes(size, frame)}; split it there")


def _interlaced(source: Path, where: str) -> VideoError:
    return VideoError(
        f"{source} is flagged as interlaced{where}, which networks take for damage", Cure.FIELDS
    )


def _changes(size: tuple[int, int], frame: VideoFrame) -> str:
    return f"changes its size from {size[0]}x{size[1]} to {frame.width}x{frame.height}"


def name_of(stream: Stream) -> str:
    """A stream's codec or, of an attachment, file; "unknown" for kinds that PyAV does not know."""
    return getattr(stream, "name", None) or "unknown"


def named(streams: Iterable[Stream]) -> str:
    """Streams in words: "audio (aac), subtitle (srt)"."""
    return ", ".join(sorted({f"{s.type} ({name_of(s)})" for s in streams}))


class _Clock:
    """Times of one stream in units of its time base, from the file's start on, ever later.

    Where times go back by more than `_RESTART`, as where recordings were joined, they go on.
    """

    def __init__(self, start: Fraction, base: Fraction, step: int) -> None:
        self.base, self.step = base, step
        self.shift = -round(start / base)
        self.last: int | None = None

    def __call__(self, time: int | None, duration: int, *, strict: bool) -> int:
        step = duration if duration > 0 else self.step
        if time is None:  # raw streams have none
            found = 0 if self.last is None else self.last + self.step
        else:
            found = time + self.shift
            if self.last is not None and (self.last - found) * self.base > _RESTART:
                self.shift += self.last + step - found
                found = self.last + step
        if strict and self.last is not None and found <= self.last:  # broken streams repeat them
            found = self.last + 1
        self.last = found if self.last is None else max(found, self.last)
        return found


class Reader:
    """Decodes the video stream of a file and passes on the packets of sound and subtitles.

    Attributes:
        copied: the streams whose packets are passed on.
        attachments: fonts and the like, which have no packets.
        dropped: what is not read, in words.
        expected: number of frames that the file states or that its duration makes likely; else 0.
            For display only.
        damaged: packets so far that could not be decoded, and frames decoded in part.
        cut_short: whether the file ends before the end that it states.
        stopped: why the end of the file was not reached; or "".
        lost: what the frames said that is not passed on, in words.
        deinterlaced: when the first interlaced frame came although none was expected, in seconds.
        start: when the first stream starts, in seconds; times are counted from there.
    """

    def __init__(
        self, container: InputContainer, video: VideoStream, source: Path, fields: Fields
    ) -> None:
        self.container, self.video, self.source, self.fields = container, video, source, fields
        known = [s for s in container.streams if getattr(s, "codec_context", None) is not None]
        self.copied = [s for s in known if s.type in ("audio", "subtitle")]
        self.attachments = [s for s in container.streams if s.type == "attachment"]
        chapters = container.chapters()  # MP4 holds them once more, as a stream of data
        read = {video.index, *(s.index for s in (*self.copied, *self.attachments))}
        left = [s for s in container.streams if s.index not in read]
        left = [s for s in left if not (chapters and name_of(s) == "bin_data")]
        self.dropped = tuple(sorted(f"{s.type} stream {s.index}" for s in left))
        self.damaged = 0
        self.cut_short = is_cut_short(source)
        self.stopped = ""
        self.lost: set[str] = set()
        self.deinterlaced: float | None = None
        rate = video.average_rate or Fraction(0)
        self.expected = video.frames or int((container.duration or 0) / 1_000_000 * rate)
        self._size: tuple[int, int] | None = None
        self._first_key: int | None = None
        self._owed: set[int] = set()
        self._fields_seen = False
        self._location: str | None = None
        self._deinterlacer: Deinterlacer | None = None
        timed = (video, *(s for s in self.copied if s.type == "audio"))
        starts = [(s.start_time, s.time_base or Fraction(0)) for s in timed]
        seconds = [time * base for time, base in starts if time is not None]
        # Before 0 lies what is decoded and not played, such as an encoder's priming samples.
        self.start = max(min(seconds, default=Fraction(0)), Fraction(0))
        rate = rate or Fraction(25)
        self.base = video.time_base or 1 / rate
        self._clock = _Clock(self.start, self.base, max(round(1 / rate / self.base), 1))
        self._clocks: dict[int, _Clock] = {}

    def items(self) -> Generator[Item, None, None]:
        """Yield each `Frame` and each packet to copy."""
        packets = self.container.demux(self.video, *self.copied)
        while not self.stopped:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except load_av().FFmpegError:
                # Nothing after this can be found: treated as the end of the file.
                self.damaged += 1
                yield from self._decoded(None)
                break
            if packet.stream.index == self.video.index:
                yield from self._decoded(packet)
            elif packet.dts is not None:
                yield self._timed(packet)
        if not self.stopped and not self._fields_seen:
            for pts in self._owed:  # decoders drop frames without an error as well
                self._count_damage(pts)
        if self._deinterlacer is not None:
            yield from map(self._frame, self._deinterlacer(None))

    def _timed(self, packet: Packet) -> Packet:
        """A packet to copy, with its time counted from the file's start."""
        stream, base = packet.stream, packet.time_base or Fraction(1, 1000)
        clock = self._clocks.setdefault(stream.index, _Clock(self.start, base, 1))
        given = packet.dts
        dts = clock(given, int(packet.duration or 0), strict=False)
        pts = None if packet.pts is None else packet.pts + dts - (given or 0)
        if stream.type == "subtitle":  # one that began before the first frame
            dts, pts = max(dts, 0), None if pts is None else max(pts, 0)
        packet.dts, packet.pts = dts, pts
        return packet

    def _decoded(self, packet: Packet | None) -> Iterator[Frame]:
        if packet is not None and packet.size:
            begins = packet.is_keyframe or self.container.format.name not in _STREAMS
            if begins and self._first_key is None:
                self._first_key = packet.pts or 0
            if self.video.name in _ONE_EACH and packet.pts is not None and not packet.is_discard:
                self._owed.add(packet.pts)
        try:
            frames = self.video.decode(packet)
        except load_av().FFmpegError:
            if packet is None or packet.pts not in self._owed:
                self._count_damage(None if packet is None else packet.pts)
            return
        for frame in frames:
            if self._ends_at(frame):
                return
            if frame.is_corrupt:
                self._count_damage(frame.pts)
            if frame.pts is not None:
                self._owed.discard(frame.pts)
            # Fields may come in packets of their own.
            self._fields_seen = self._fields_seen or bool(frame.interlaced_frame)
            for whole in self._whole(frame):
                yield self._frame(whole)
            self._size = frame.width, frame.height

    def _count_damage(self, pts: int | None) -> None:
        """Count what could not be decoded, unless it is shown before a recording's first key frame.

        Recordings begin anywhere: what needs frames before their start is no damage.
        """
        self.damaged += self._first_key is not None and (pts is None or pts >= self._first_key)

    def _ends_at(self, frame: VideoFrame) -> bool:
        """Whether the work ends before this frame, which cannot follow those before it."""
        colour = Colour.of(frame)
        if colour.unreadable and not is_rgb(frame.format) and self._size is None:
            raise VideoError(
                f"{self.source} stores its colours as {colour.unreadable}, which only few tools "
                "convert; convert it first, such as by: ffmpeg -i IN -vf zscale=matrix=709 OUT"
            )
        if self._size is not None and self._size != (frame.width, frame.height):
            self.stopped = _changes(self._size, frame)
        return bool(self.stopped)

    def _whole(self, frame: VideoFrame) -> Iterable[VideoFrame]:
        """The frame, or what the deinterlacer makes of it and those before it."""
        if frame.interlaced_frame and self.fields == "refuse":
            if self._size is None:
                raise _interlaced(self.source, "")
            # Found too late to be refused: what is done is not thrown away for it.
            self.fields = "deinterlace"
            self.deinterlaced = max((frame.time or 0.0) - float(self.start), 0.0)
        if self.fields != "deinterlace":
            return (frame,)
        if self._deinterlacer is None:
            self._deinterlacer = Deinterlacer(frame, self.base)
        return self._deinterlacer(frame)

    def _frame(self, frame: VideoFrame) -> Frame:
        if self._location is None and is_subsampled(frame.format):
            self._location = chroma_location(frame)
        every: Any = frame.side_data
        side = {data.type.name: data for data in every}
        self.lost |= {LOST[kind] for kind in side if kind in LOST}
        matrix: Any = side.get("DISPLAYMATRIX")
        duration = int(frame.duration or 0)
        return Frame(
            picture=to_picture(frame),
            pts=self._clock(frame.pts, duration, strict=True),
            duration=duration,
            pixel_format=frame.format.name,
            colour=Colour.of(frame),
            location=self._location or "left",
            matrix=None if matrix is None else tuple(np.frombuffer(bytes(matrix), "i4").tolist()),
            side={kind: bytes(side[kind]) for kind in (MASTERING, LIGHT) if kind in side},
        )
