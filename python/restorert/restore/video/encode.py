"""Writing a video: restored frames are encoded, other packets of the source copied."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.errors import InputError, VideoError, reason_of
from restorert.restore.video.colour import FULL_RANGE_ONLY, target_colour
from restorert.restore.video.convert import FrameMaker
from restorert.restore.video.decode import Frame, Item, Reader, name_of, named
from restorert.restore.video.frames import has_alpha, is_subsampled, load_av, nearest_format
from restorert.restore.video.hdr import hdr_options

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

_MP4 = (".mp4", ".m4v", ".mov")

CONTAINERS = {**dict.fromkeys((*_MP4, ".mkv"), "libx264"), ".webm": "libvpx-vp9"}
"""Suffix of a file to write -> its default encoder."""

# Suffixes of files that are proposed where another cannot hold something, and FFmpeg's names.
_FORMATS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4"}

# Each encoder's default constant rate factor: visually lossless.
_QUALITY = {"libx264": 16, "libx265": 18, "libvpx-vp9": 20, "libsvtav1": 20}

# Encoders that take a frame rate for a time base.
_CONSTANT_RATE = ("mpeg1video", "mpeg2video")

# Seconds between decoding and showing a frame, at most; more is an encoder's mistake.
_LONGEST_DELAY = 60

# Decoders that say where chroma lies; "center" of others means that nothing is known.
_LOCATING = ("mjpeg", "mpeg1video", "h264", "hevc")

# Metadata that every muxer writes itself.
_OWN = {"encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id", "duration"}


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An FFmpeg encoder by name, and its options."""

    name: str
    options: dict[str, str]

    @classmethod
    def choose(
        cls, target: Path, codec: str | None, crf: int | None, options: Mapping[str, str]
    ) -> Encoder:
        """The encoder for a file; see `restore_video` for the arguments."""
        suffix = target.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(f"{target}: a video's name ends in one of {', '.join(CONTAINERS)}")
        name = codec or CONTAINERS[suffix]
        try:
            made = load_av().codec.Codec(name, "w")
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
            os.environ.setdefault("SVT_LOG", "1")  # it writes to stderr by itself: errors only
        if made.name in _QUALITY:
            chosen.setdefault("crf", str(_QUALITY[made.name] if crf is None else crf))
            if made.name == "libvpx-vp9":
                chosen.setdefault("b", "0")  # else crf is only a limit
                chosen.setdefault("row-mt", "1")
        elif crf is not None:
            raise InputError(f"{made.name} has no crf; its quality is set by its own options")
        return cls(made.name, chosen)

    def pixel_format(self, given: str, target: Path, *, alpha: bool) -> str:
        """The pixel format in which the encoder loses least of ``given``.

        Args:
            given: the source's.
            target: for the message.
            alpha: whether transparency, if ``given`` has it, must be held.
        """
        formats = load_av().codec.Codec(self.name, "w").video_formats or []
        # swscale cannot write palettes and half precision.
        names = [f.name for f in formats if not f.has_palette and "f16" not in f.name]
        if self.name == "magicyuv":  # readers do not agree on the range of its grey
            names.remove("gray")
        if formats and not names:
            raise InputError(f"{self.name} takes few colours or rare samples alone; name another")
        if not given.startswith("yuvj"):  # the name for full range where nothing else says so
            names = [name for name in names if not name.startswith("yuvj")] or names
        chosen = nearest_format(given, names, alpha=alpha)
        if chosen is None:
            raise VideoError(
                f"{self.name} cannot hold the transparency of {given}; write {target.stem}.mkv "
                "with ffv1, or .mov with prores_ks"
            )
        return chosen


class Writer:
    """Encodes frames and copies packets of a reader into ``temporary``, to become ``target``.

    Attributes:
        dropped: what the target could not hold, in words.
    """

    def __init__(self, reader: Reader, target: Path, temporary: Path, encoder: Encoder) -> None:
        self.reader, self.encoder = reader, encoder
        self.target, self.temporary = target, temporary
        self.suffix = target.suffix.lower()
        self.dropped: list[str] = []
        self.pixel_format = ""
        self.stream: Any = None
        self.maker: FrameMaker | None = None
        self.copies: dict[int, Any] = {}
        self.tick = Fraction(1)
        self.last_pts: int | None = None
        self.last_dts: dict[int, Fraction] = {}
        self.opaque = False

    def write(self, first: Frame, items: Iterator[Item]) -> int:
        """Write all items; returns the number of frames.

        Args:
            first: the first frame among them, restored or not, which decides on the format: what
                the target cannot hold is refused before any of ``items`` is asked for.
            items: frames and packets.
        """
        try:
            return self._write(first, items)
        except load_av().FFmpegError as error:  # in a frame, a packet, or the file's end
            raise VideoError(f"{self.target} cannot be written: {reason_of(error)}") from None

    def _write(self, first: Frame, items: Iterator[Item]) -> int:
        options = {"movflags": "+faststart"} if self.suffix in _MP4 else {}
        frames = 0
        with load_av().open(str(self.temporary), "w", container_options=options) as output:
            self._begin(output, first)
            for item in items:
                if isinstance(item, Frame):
                    frames += 1
                    self._encode(output, item, frames)
                else:
                    self._copy(output, item)
            self._mux(output, self.stream.encode(None))
        return frames

    def _begin(self, output: OutputContainer, first: Frame) -> None:
        """Write what precedes the frames: streams, metadata, chapters, header."""
        av = load_av()
        source = self.reader.container
        self._add_video(output, first)
        for stream in self.reader.copied:
            try:
                copy = output.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError):
                raise self._cannot_hold(f"its {stream.type} ({name_of(stream)})") from None
            copy.metadata.update(_clean(stream.metadata))
            copy.disposition = stream.disposition
            self.copies[stream.index] = copy
        for stream in self.reader.attachments:
            # Matroska wants both; without them it is the header that fails.
            if self.suffix == ".mkv" and {"filename", "mimetype"} <= set(stream.metadata):
                output.add_stream_from_template(stream)
            else:
                self.dropped.append(f"attachment {name_of(stream)}")
        output.metadata.update(_clean(source.metadata))
        if chapters := source.chapters():
            output.set_chapters([_moved(chapter, self.reader.start) for chapter in chapters])
        try:
            output.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            kinds = named(self.reader.copied) or f"{self.encoder.name} in {self.pixel_format}"
            raise self._cannot_hold(f"{kinds} ({reason_of(error)})") from None
        unused = [name for name in self.encoder.options if name in (self.stream.options or {})]
        if unused:
            raise InputError(f"{self.encoder.name} knows no option {', '.join(unused)}")

    def _add_video(self, output: OutputContainer, first: Frame) -> None:
        av = load_av()
        encoder, video = self.encoder, self.reader.video
        source, alpha = av.VideoFormat(first.pixel_format), first.picture.alpha
        largest = 255 if first.picture.pixels.dtype == "u1" else 65535
        self.opaque = alpha is None or bool((alpha == largest).all())
        self.pixel_format = encoder.pixel_format(
            first.pixel_format, self.target, alpha=not self.opaque
        )
        height, width = first.picture.pixels.shape[:2]
        layout = av.VideoFormat(self.pixel_format, width, height)
        self.opaque = self.opaque and has_alpha(source) and not has_alpha(layout)
        if encoder.name in ("libx264", "libx265") and (
            (width % 2 and layout.chroma_width() * 2 == width + 1)
            or (height % 2 and layout.chroma_height() * 2 == height + 1)
        ):
            raise VideoError(
                f"{encoder.name} takes no {self.pixel_format} of {width}x{height}, an odd size; "
                "name another encoder, such as libvpx-vp9 or ffv1"
            )
        rate = video.guessed_rate or video.average_rate or Fraction(25)
        hdr = hdr_options(encoder.name, first.side, encoder.options)
        if first.side and hdr is None:
            self.dropped.append("HDR10 mastering metadata")
        options = {**encoder.options, **(hdr or {})}
        try:
            self.stream = output.add_stream(encoder.name, rate=rate, options=options)
        except (av.FFmpegError, ValueError) as error:
            raise self._cannot_hold(f"{encoder.name} ({reason_of(error)})") from None
        context: Any = self.stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, self.pixel_format
        tick = self.reader.base
        if encoder.name in _CONSTANT_RATE or (encoder.name == "mpeg4" and tick.denominator > 65535):
            tick = 1 / rate
        context.time_base = self.tick = tick
        colour = target_colour(first.colour, source, layout, encoder.name, self.suffix, height)
        colour.mark(context)
        location = first.location
        if encoder.name in FULL_RANGE_ONLY:
            location = "center"
        elif is_subsampled(layout) and is_subsampled(source):
            # "left" is what decoders assume where nothing is said.
            if location == "topleft" or (location == "center" and video.name in _LOCATING):
                self.stream.options.setdefault("chroma_sample_location", location)
        else:
            location = "left"
        self.maker = FrameMaker(self.pixel_format, colour, width, height, location)
        if video.sample_aspect_ratio:
            context.sample_aspect_ratio = video.sample_aspect_ratio
        if encoder.name == "libx265" and self.suffix in _MP4:
            context.codec_tag = "hvc1"  # the only one that Apple's players take
        if first.matrix is not None:
            self.stream.set_display_matrix(first.matrix)
        self.stream.metadata.update(_clean(video.metadata))
        self.stream.disposition = video.disposition
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            said = ", ".join(f"{name}={value}" for name, value in encoder.options.items())
            raise InputError(
                f"{encoder.name} refuses {self.pixel_format} of {width}x{height} with "
                f"{said or 'its own settings'} ({reason_of(error)})"
            ) from None

    def _cannot_hold(self, what: str) -> VideoError:
        fact = f"{self.suffix} cannot hold {what} of {self.reader.source}"
        for suffix, container in _FORMATS.items():
            if suffix != self.suffix and self._fits(container):
                return VideoError(f"{fact}; write {self.target.stem}{suffix}, which can")
        return VideoError(f"{fact}; name another encoder, or leave that out of the source")

    def _fits(self, container: str) -> bool:
        """Whether a container takes the encoder's video and all streams that are copied."""
        av = load_av()
        output = av.open(io.BytesIO(), "w", format=container)
        try:
            output.add_stream(self.encoder.name, rate=25)
            for stream in self.reader.copied:
                output.add_stream_from_template(stream)
        except (av.FFmpegError, ValueError):
            return False
        return True

    def _encode(self, output: OutputContainer, item: Frame, number: int) -> None:
        assert self.maker is not None
        if self.opaque and item.picture.alpha is not None and not item.picture.alpha.all():
            self.opaque = False
            self.dropped.append(f"transparency, from frame {number} on")
        frame = self.maker(item.picture)
        pts = round(item.pts * self.reader.base / self.tick)
        if self.last_pts is not None:  # two frames within one tick
            pts = max(pts, self.last_pts + 1)
        frame.pts, frame.time_base = pts, self.tick
        self.last_pts = pts
        if item.duration:
            frame.duration = max(round(item.duration * self.reader.base / self.tick), 1)
        self._mux(output, self.stream.encode(frame))

    def _copy(self, output: OutputContainer, packet: Packet) -> None:
        # What an edit list hides, as priming samples; other containers have no such lists.
        if packet.is_discard and self.suffix not in _MP4:
            return
        packet.stream = self.copies[packet.stream.index]
        self._mux(output, [packet])

    def _mux(self, output: OutputContainer, packets: Sequence[Packet]) -> None:
        """Write packets, each decoded later than the last of its stream and before it is shown.

        Broken files repeat times, and libx265 makes some up for videos of a few frames.
        """
        for packet in packets:
            base, times = packet.time_base, (packet.pts, packet.dts)
            known = [time for time in times if time is not None]
            if not known or base is None:
                continue  # it cannot be placed
            pts, dts = known[0], known[-1]
            if dts > pts or (pts - dts) * base > _LONGEST_DELAY:
                dts = pts
            last = self.last_dts.get(packet.stream.index)
            # Two subtitles may begin together.
            if last is not None and dts * base <= last and packet.stream.type != "subtitle":
                dts = int(last / base) + 1
            packet.dts, packet.pts = dts, max(pts, dts)
            self.last_dts[packet.stream.index] = dts * base
            output.mux_one(packet)


def _clean(metadata: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in metadata.items() if k.lower() not in _OWN}


def _moved(chapter: Any, start: Fraction) -> Any:
    """A chapter whose times count from ``start`` seconds on."""
    shift = round(start / chapter["time_base"])
    times = {name: max(chapter[name] - shift, 0) for name in ("start", "end")}
    return {**chapter, **times}
