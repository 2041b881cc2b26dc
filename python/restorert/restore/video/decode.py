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
from restorert.restore.video.colour import Colour
from restorert.restore.video.convert import chroma_location, to_picture
from restorert.restore.video.frames import is_rgb, is_subsampled, load_av

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


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame between decoder and encoder, as stored: the display matrix is not applied.

    Attributes:
        location: where its chroma lies, see `chroma_location`.
    """

    picture: Picture
    pts: int
    duration: int
    pixel_format: str
    colour: Colour
    location: str
    matrix: tuple[int, ...] | None


Item = Any
"""A `Frame`, or a packet to copy."""


@contextlib.contextmanager
def open_video(source: Path, max_pixels: int) -> Iterator[Reader]:
    """A reader of the file's first video stream."""
    av = load_av()
    if source.is_dir():
        raise VideoError(f"{source} is a folder, not a video")
    if not source.exists():
        raise VideoError(f"{source}: no such file; check the path")
    try:
        container = av.open(
            f"file:{source}",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file", "format_whitelist": _DEMUXERS},
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"{source} cannot be read as a video ({reason_of(error)})", Cure.PICTURES
        ) from None
    with container:
        cover = av.stream.Disposition.attached_pic
        found = [s for s in container.streams.video if not s.disposition & cover]
        if not found:
            held = named(container.streams) or "nothing"
            raise VideoError(f"{source} holds no video, only {held}")
        video = found[0]
        if video.codec_context is None:
            raise VideoError(f"{source}: no decoder for its video; convert it to another codec")
        size = f"{video.width}x{video.height}"
        if video.width * video.height > max_pixels:
            raise VideoError(f"{source} is {size}, more than {max_pixels} pixels a frame")
        video.thread_type = "AUTO"
        yield Reader(container, video, source)


def named(streams: Iterable[Stream]) -> str:
    """Streams in words: "audio (aac), subtitle (srt)"."""
    return ", ".join(sorted({f"{s.type} ({s.name})" for s in streams}))


class Reader:
    """Decodes the video stream of a file and passes on the packets of sound and subtitles.

    Attributes:
        copied: the streams whose packets are passed on.
        dropped: the streams that are not read, in words.
        expected: number of frames, stated by the file or estimated from its duration; else 0.
        damaged: packets so far that could not be decoded, and frames decoded in part.
    """

    def __init__(self, container: InputContainer, video: VideoStream, source: Path) -> None:
        self.container, self.video, self.source = container, video, source
        self.copied = [s for s in container.streams if s.type in ("audio", "subtitle")]
        chapters = container.chapters()  # MP4 holds them once more, as a stream of data
        read = {video.index, *(s.index for s in self.copied)}
        left = [s for s in container.streams if s.index not in read]
        left = [s for s in left if not (chapters and s.name == "bin_data")]
        self.dropped = tuple(sorted(f"{s.type} stream {s.index}" for s in left))
        self.damaged = 0
        rate = video.average_rate or Fraction(0)
        self.expected = video.frames or int((container.duration or 0) / 1_000_000 * rate)
        self._size: tuple[int, int] | None = None
        self._last_pts: int | None = None
        self._location: str | None = None

    def items(self) -> Generator[Item, None, None]:
        """Yield each `Frame` and each packet to copy."""
        packets = self.container.demux(self.video, *self.copied)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except load_av().FFmpegError:
                # Nothing after this can be found: treated as the end of the file.
                self.damaged += 1
                yield from self._decoded(None)
                return
            if packet.stream.index == self.video.index:
                yield from self._decoded(packet)
            elif packet.dts is not None:
                yield packet

    def _decoded(self, packet: Packet | None) -> Iterator[Frame]:
        try:
            frames = self.video.decode(packet)
        except load_av().FFmpegError:
            self.damaged += 1
            return
        for frame in frames:
            self.damaged += bool(frame.is_corrupt)
            yield self._frame(frame)

    def _frame(self, frame: VideoFrame) -> Frame:
        if frame.interlaced_frame:
            raise VideoError(
                f"{self.source} is interlaced, which networks take for damage; deinterlace it "
                "first, such as by: ffmpeg -i IN -vf bwdif OUT"
            )
        size = frame.width, frame.height
        self._size = self._size or size
        if size != self._size:
            raise VideoError(
                f"{self.source} changes its size from {self._size[0]}x{self._size[1]} to "
                f"{size[0]}x{size[1]}; split it there"
            )
        colour = Colour.of(frame)
        if colour.unreadable and not is_rgb(frame.format):
            raise VideoError(
                f"{self.source} stores its colours as {colour.unreadable}, which only few tools "
                "convert; convert it first, such as by: ffmpeg -i IN -vf zscale=matrix=709 OUT"
            )
        if self._location is None and is_subsampled(frame.format):
            self._location = chroma_location(frame)
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        return Frame(
            picture=to_picture(frame),
            pts=self._pts(frame),
            duration=int(frame.duration or 0),
            pixel_format=frame.format.name,
            colour=colour,
            location=self._location or "left",
            matrix=None if matrix is None else tuple(np.frombuffer(bytes(matrix), "i4").tolist()),
        )

    def _pts(self, frame: VideoFrame) -> int:
        """The presentation time in units of the time base; later than the last frame's."""
        pts, last = frame.pts, self._last_pts
        if last is None:
            pts = pts or 0
        elif pts is None:  # raw streams have no timestamps
            rate = self.video.average_rate or Fraction(25)
            pts = last + max(round(1 / (rate * (self.video.time_base or 1 / rate))), 1)
        elif pts <= last:  # broken streams repeat them
            pts = last + 1
        self._last_pts = pts
        return pts
