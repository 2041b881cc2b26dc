"""From a video file to the restored video file, every frame through the engine.

PyAV (FFmpeg's libraries) reads and writes. Decoding, restoring and encoding run at the same time,
in a thread each, so that the engine waits for neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from restorert.errors import InputError, VideoError, printable
from restorert.files import check_output, replace_atomically
from restorert.pictures.files import MAX_PIXELS, Picture
from restorert.restore.picture import restore_picture
from restorert.restore.protocol import Engine
from restorert.restore.video_frames import Colour, load_av, to_frame, to_picture

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# What a file's name says of it, and the encoder that suits it.
CONTAINERS = {
    ".mp4": "libx264",
    ".m4v": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
}

_MP4 = (".mp4", ".m4v", ".mov")

# Quality that shows no loss beside the source: the default constant rate factor of each encoder.
_QUALITY = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20}

# Files that are videos by themselves. Playlists, which may name any other file, are not among them.
_DEMUXERS = (
    "asf,avi,dnxhd,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,"
    "obu,ogg,rm,vc1,yuv4mpegpipe"
)

# Frames decoded, and frames restored, that wait for their turn.
_AHEAD = 3

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What `restore_video` did.

    Attributes:
        frames: restored and written.
        expected: frames that the source says it has, or 0 where it does not.
        damaged: packets of the source that could not be decoded, and frames decoded in part.
        dropped: in words, what of the source is not in the result.
    """

    frames: int
    expected: int
    damaged: int
    dropped: tuple[str, ...]

    @property
    def incomplete(self) -> bool:
        """Whether the source lacks frames: cut short, or with holes that FFmpeg passes over."""
        # Durations are rounded, and edit lists hide a few frames.
        return bool(self.damaged) or self.frames < 0.98 * self.expected - 2


def restore_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: Engine,
    *,
    tile: Literal["auto"] | int | None = "auto",
    codec: str | None = None,
    crf: int | None = None,
    options: Mapping[str, str] | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
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
        max_pixels: width times height that are taken.
        progress: called with the frames done and the frames of all, 0 where that is not known.

    Raises:
        VideoError: ``source`` is no video or a damaged one, is interlaced, or ``target`` cannot
            hold what it has.
        InputError: ``target`` cannot be written, or an encoder or option that does not exist.
        RunnerUnavailableError: PyAV is not installed.
        RestorertError: what `restore_picture` raises.
        OSError: the disk is full.
    """
    load_av()
    source, target = Path(source), Path(target)
    check_output(target)
    encoder = _Encoder.choose(target, codec, crf, options or {})
    with _opened(source) as container:
        video = _video_stream(container, source, max_pixels)
        reader = _Reader(container, video, source)

        def restored() -> Generator[_Item, None, None]:
            done = 0
            with contextlib.closing(_in_thread(reader.items())) as items:
                for item in items:
                    if isinstance(item, _Frame):
                        picture = restore_picture(item.picture, engine, tile=tile)
                        item = dataclasses.replace(item, picture=picture)
                        done += 1
                        if progress:
                            progress(done, max(reader.expected, done) if reader.expected else 0)
                    yield item

        with replace_atomically(target) as temporary:
            writer = _Writer(container, video, source, target, temporary, encoder)
            with contextlib.closing(_in_thread(restored())) as items:
                frames = writer.write(items)
            if not frames:
                raise VideoError(f"{source}: none of its frames can be decoded; get it again")
    return VideoReport(frames, reader.expected, reader.damaged, writer.dropped)


_T = TypeVar("_T")


def _in_thread(items: Generator[_T, None, None]) -> Generator[_T, None, None]:
    """The items, taken from their iterator in a thread of its own a few ahead of their reader.

    What the iterator raises is raised here. Closed, it closes the iterator and ends the thread.
    """
    ready: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(_AHEAD)
    unwanted = threading.Event()

    def put(item: _T | None, error: BaseException | None = None) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # is raised in the reader's thread
            put(None, error)
        finally:
            items.close()

    thread = threading.Thread(target=work, name="restorert-video", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        unwanted.set()
        thread.join()


@dataclasses.dataclass(frozen=True)
class _Frame:
    """A frame on its way: upright or not, as it is stored."""

    picture: Picture
    pts: int
    duration: int
    pixel_format: str
    colour: Colour
    matrix: tuple[int, ...] | None


_Item = Any  # _Frame, or a packet to copy


def _failure(error: Exception) -> str:
    """FFmpeg's reason, without its number and its file's name."""
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[InputContainer]:
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
            f"{source} is no video that can be read ({_failure(error)}); pictures are for "
            "restore_image, or: restorert restore"
        ) from None
    with container:
        yield container


def _video_stream(container: InputContainer, source: Path, max_pixels: int) -> VideoStream:
    av = load_av()
    cover = av.stream.Disposition.attached_pic
    found = [s for s in container.streams.video if not s.disposition & cover]
    if not found:
        raise VideoError(f"{source} holds no video, only {_told(container.streams) or 'nothing'}")
    video: VideoStream = found[0]
    if video.codec_context is None:
        raise VideoError(f"{source}: no decoder for its video; convert it to another codec")
    if video.width * video.height > max_pixels:
        raise VideoError(
            f"{source} is {video.width}x{video.height}, more than {max_pixels} pixels a frame"
        )
    video.thread_type = "AUTO"
    return video


def _told(streams: Any) -> str:
    return ", ".join(sorted({f"{s.type} ({s.name})" for s in streams}))


class _Reader:
    """Frames, and packets to copy, in the order of the file."""

    def __init__(self, container: InputContainer, video: VideoStream, source: Path) -> None:
        self.container = container
        self.video = video
        self.source = source
        self.damaged = 0
        rate = video.average_rate or Fraction(0)
        seconds = (container.duration or 0) / 1_000_000
        # Told by the file or guessed; never trusted but for progress.
        self.expected = video.frames or int(seconds * rate)
        self._size: tuple[int, int] | None = None
        self._last_pts: int | None = None

    def items(self) -> Generator[_Item, None, None]:
        av = load_av()
        copied = [s for s in self.container.streams if _copyable(s)]
        packets = self.container.demux(self.video, *copied)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                # What comes after cannot be found: as if the file ended here.
                self.damaged += 1
                packet = None
            if packet is None:
                yield from self._decoded(None)
                return
            if packet.stream.index != self.video.index:
                if packet.dts is not None:
                    yield packet
                continue
            yield from self._decoded(packet)

    def _decoded(self, packet: Packet | None) -> Iterator[_Frame]:
        try:
            frames = self.video.decode(packet)
        except load_av().FFmpegError:
            self.damaged += 1
            return
        for frame in frames:
            self.damaged += bool(frame.is_corrupt)
            yield self._frame(frame)

    def _frame(self, frame: VideoFrame) -> _Frame:
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
        rate = self.video.average_rate or Fraction(25)
        step = max(round(1 / (rate * (self.video.time_base or 1 / rate))), 1)
        pts = frame.pts
        if self._last_pts is None:
            pts = pts if pts is not None else 0
        elif pts is None or pts <= self._last_pts:  # raw streams have no times, broken ones twice
            pts = self._last_pts + (step if pts is None else 1)
        self._last_pts = pts
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        return _Frame(
            picture=to_picture(frame),
            pts=pts,
            duration=int(frame.duration or 0),
            pixel_format=frame.format.name,
            colour=Colour.of(frame),
            matrix=None
            if matrix is None
            else tuple(np.frombuffer(bytes(matrix), np.int32).tolist()),
        )


def _copyable(stream: Stream) -> bool:
    return stream.type in ("audio", "subtitle")


@dataclasses.dataclass(frozen=True)
class _Encoder:
    name: str
    options: dict[str, str]

    @classmethod
    def choose(
        cls, target: Path, codec: str | None, crf: int | None, options: Mapping[str, str]
    ) -> _Encoder:
        av = load_av()
        suffix = target.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(f"{target}: a video's name ends in one of {', '.join(CONTAINERS)}")
        name = codec or CONTAINERS[suffix]
        try:
            made = av.codec.Codec(name, "w")
        except ValueError:
            made = None
        if made is None or made.type != "video":
            raise InputError(
                f"{name!r} is no video encoder of this FFmpeg; such as: {', '.join(_QUALITY)}, "
                "ffv1, prores_ks"
            )
        if crf is not None and not 0 <= crf <= 63:
            raise InputError(f"crf is {crf}; encoders take 0 to 51 or 63")
        chosen = {str(k): str(v) for k, v in options.items()}
        if made.name == "libx265":
            chosen.setdefault("x265-params", "log-level=error")
        elif made.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors alone: it writes on stderr by itself
        if made.name in _QUALITY:
            chosen.setdefault("crf", str(_QUALITY[made.name] if crf is None else crf))
            if made.name == "libvpx-vp9":
                chosen.setdefault("b", "0")  # else crf is only a limit
                chosen.setdefault("row-mt", "1")
        elif crf is not None:
            raise InputError(f"{made.name} has no crf; its quality is set by its own options")
        return cls(made.name, chosen)

    def pixel_format(self, given: str, target: Path) -> str:
        """The encoder's format that loses least of another."""
        av = load_av()
        formats = [f.name for f in av.codec.Codec(self.name, "w").video_formats or []]
        if given in formats or not formats:
            return given
        components = av.VideoFormat(given).components
        best, loss = av.codec.codec.find_best_pix_fmt_of_list(
            formats, given, has_alpha=any(c.is_alpha for c in components)
        )
        if loss & av.codec.codec.PixFmtLoss.ALPHA:
            raise VideoError(
                f"{self.name} cannot hold the transparency of {given}; write {target.stem}.mkv "
                "with ffv1, or .mov with prores_ks"
            )
        return str(best if isinstance(best, str) else best.name)


class _Writer:
    """Encodes frames and copies packets; the file is begun when the first frame has come."""

    def __init__(
        self,
        container: InputContainer,
        video: VideoStream,
        source: Path,
        target: Path,
        temporary: Path,
        encoder: _Encoder,
    ) -> None:
        self.container, self.video = container, video
        self.source, self.target, self.temporary = source, target, temporary
        self.encoder = encoder
        self.stream: Any = None
        self.copied = [s for s in container.streams if _copyable(s)]
        chapters = container.chapters()  # MP4 holds them once more, as a stream of data
        left = [
            s
            for s in container.streams
            if not (s.index == video.index or _copyable(s))
            and not (chapters and s.name == "bin_data")
        ]
        self.dropped = tuple(sorted({f"{s.type} stream {s.index}" for s in left}))

    def write(self, items: Iterator[_Item]) -> int:
        """Write all items; returns how many were frames."""
        try:
            return self._write(items)
        except load_av().FFmpegError as error:  # in a frame, a packet, or the file's end
            raise VideoError(f"{self.target} cannot be written: {_failure(error)}") from None

    def _write(self, items: Iterator[_Item]) -> int:
        av = load_av()
        early: list[Packet] = []
        first: _Frame | None = None
        for item in items:
            if isinstance(item, _Frame):
                first = item
                break
            early.append(item)
        if first is None:
            return 0
        options = {"movflags": "+faststart"} if self.target.suffix.lower() in _MP4 else {}
        with av.open(str(self.temporary), "w", container_options=options) as output:
            self._begin(output, first)
            for packet in early:
                self._copy(output, packet)
            frames = 0
            self._encode(output, first)
            for item in items:
                if isinstance(item, _Frame):
                    frames += 1
                    self._encode(output, item)
                else:
                    self._copy(output, item)
            output.mux(self.stream.encode(None))
        return frames + 1

    def _begin(self, output: OutputContainer, first: _Frame) -> None:
        av = load_av()
        rate = self.video.guessed_rate or self.video.average_rate or Fraction(25)
        pixel_format = self.encoder.pixel_format(first.pixel_format, self.target)
        height, width = first.picture.pixels.shape[:2]
        layout = av.VideoFormat(pixel_format, width, height)
        if self.encoder.name in ("libx264", "libx265") and (
            (width % 2 and layout.chroma_width() * 2 == width + 1)
            or (height % 2 and layout.chroma_height() * 2 == height + 1)
        ):
            raise VideoError(
                f"{self.encoder.name} takes no {pixel_format} of {width}x{height}, an odd size; "
                "name another encoder, such as libvpx-vp9 or ffv1"
            )
        try:
            self.stream = output.add_stream(
                self.encoder.name, rate=rate, options=dict(self.encoder.options)
            )
        except (av.FFmpegError, ValueError) as error:
            raise self._cannot_hold(f"{self.encoder.name} ({_failure(error)})") from None
        context: Any = self.stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = self.video.time_base
        context.color_range = first.colour.range
        context.colorspace = first.colour.matrix
        context.color_primaries = first.colour.primaries
        context.color_trc = first.colour.transfer
        shape = self.video.sample_aspect_ratio
        if shape:
            context.sample_aspect_ratio = shape
        if self.encoder.name == "libx265" and self.target.suffix.lower() in _MP4:
            context.codec_tag = "hvc1"  # the only one that Apple's players take
        if first.matrix is not None:
            self.stream.set_display_matrix(first.matrix)
        self.stream.metadata.update(_clean(self.video.metadata))
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self.encoder.name} refuses {pixel_format} of {width}x{height} with "
                f"{_told_options(self.encoder.options)} ({_failure(error)})"
            ) from None
        self.pixel_format = pixel_format
        self.copies: dict[int, Any] = {}
        for stream in self.copied:
            if stream.codec_context is None:
                raise self._cannot_hold(f"the {stream.type} stream {stream.index}")
            try:
                copy = output.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError):
                raise self._cannot_hold(f"its {stream.type} ({stream.name})") from None
            copy.metadata.update(_clean(stream.metadata))
            self.copies[stream.index] = copy
        output.metadata.update(_clean(self.container.metadata))
        chapters = self.container.chapters()
        if chapters:
            output.set_chapters(chapters)
        try:
            output.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            kinds = _told(self.copied) or f"{self.encoder.name} in {pixel_format}"
            raise self._cannot_hold(f"{kinds} ({_failure(error)})") from None
        unused = {k: v for k, v in self.encoder.options.items() if k in (self.stream.options or {})}
        if unused:
            raise InputError(f"{self.encoder.name} knows no option {', '.join(unused)}")

    def _cannot_hold(self, what: str) -> VideoError:
        return VideoError(
            f"{self.target.suffix} cannot hold {what} of {self.source}; "
            f"write {self.target.stem}.mkv, which holds nearly all"
        )

    def _encode(self, output: OutputContainer, item: _Frame) -> None:
        frame = to_frame(item.picture, self.pixel_format, item.colour)
        frame.pts, frame.time_base = item.pts, self.video.time_base
        if item.duration:
            frame.duration = item.duration
        output.mux(self.stream.encode(frame))

    def _copy(self, output: OutputContainer, packet: Packet) -> None:
        packet.stream = self.copies[packet.stream.index]
        output.mux([packet])


def _told_options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "its own settings"


# Written by every muxer about itself.
_OWN = {"encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id", "duration"}


def _clean(metadata: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in metadata.items() if k.lower() not in _OWN}
