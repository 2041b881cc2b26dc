"""Writing a video: restored frames are encoded, other packets of the source copied."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.errors import InputError, VideoError, reason_of
from restorert.restore.video.colour import FULL_RANGE_ONLY, target_colour
from restorert.restore.video.convert import FrameMaker
from restorert.restore.video.decode import Frame, Item, Reader, named
from restorert.restore.video.frames import is_subsampled, load_av, nearest_format

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet

_MP4 = (".mp4", ".m4v", ".mov")

CONTAINERS = {**dict.fromkeys((*_MP4, ".mkv"), "libx264"), ".webm": "libvpx-vp9"}
"""Suffix of a file to write -> its default encoder."""

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

    def pixel_format(self, given: str, target: Path, *, alpha: bool = True) -> str:
        """The pixel format in which the encoder loses least of ``given``."""
        formats = load_av().codec.Codec(self.name, "w").video_formats or []
        # swscale cannot write palettes and half precision.
        names = [f.name for f in formats if not f.has_palette and "f16" not in f.name]
        if self.name == "magicyuv":  # readers do not agree on the range of its grey
            names.remove("gray")
        if formats and not names:
            raise InputError(f"{self.name} takes few colours or rare samples alone; name another")
        if not given.startswith(
            "yuvj"
        ):  # which stands for full range, where that is not said apart
            names = [name for name in names if not name.startswith("yuvj")] or names
        chosen = nearest_format(given, names, alpha=alpha)
        if chosen is None:
            raise VideoError(
                f"{self.name} cannot hold the transparency of {given}; write {target.stem}.mkv "
                "with ffv1, or .mov with prores_ks"
            )
        return chosen


class Writer:
    """Encodes frames and copies packets of a reader into ``temporary``, to become ``target``."""

    def __init__(self, reader: Reader, target: Path, temporary: Path, encoder: Encoder) -> None:
        self.reader, self.encoder = reader, encoder
        self.target, self.temporary = target, temporary
        self.pixel_format = ""
        self.stream: Any = None
        self.maker: FrameMaker | None = None
        self.copies: dict[int, Any] = {}
        self.tick = Fraction(1)
        self.last_pts: int | None = None
        self.last_dts: dict[int, Fraction] = {}

    def write(self, items: Iterator[Item]) -> int:
        """Write all items; returns the number of frames."""
        try:
            return self._write(items)
        except load_av().FFmpegError as error:  # in a frame, a packet, or the file's end
            raise VideoError(f"{self.target} cannot be written: {reason_of(error)}") from None

    def _write(self, items: Iterator[Item]) -> int:
        options = {"movflags": "+faststart"} if self.target.suffix.lower() in _MP4 else {}
        frames = 0
        early: list[Packet] = []  # packets before the first frame, which decides the format
        with load_av().open(str(self.temporary), "w", container_options=options) as output:
            for item in items:
                if isinstance(item, Frame):
                    if not frames:
                        self._begin(output, item)
                        for packet in early:
                            self._copy(output, packet)
                    frames += 1
                    self._encode(output, item)
                elif frames:
                    self._copy(output, item)
                else:
                    early.append(item)
            if frames:
                self._mux(output, self.stream.encode(None))
        return frames

    def _begin(self, output: OutputContainer, first: Frame) -> None:
        """Write what precedes the frames: streams, metadata, chapters, header."""
        av = load_av()
        source = self.reader.container
        self._add_video(output, first)
        for stream in self.reader.copied:
            if stream.codec_context is None:
                raise self._cannot_hold(f"the {stream.type} stream {stream.index}")
            try:
                copy = output.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError):
                raise self._cannot_hold(f"its {stream.type} ({stream.name})") from None
            copy.metadata.update(_clean(stream.metadata))
            self.copies[stream.index] = copy
        output.metadata.update(_clean(source.metadata))
        if chapters := source.chapters():
            output.set_chapters(chapters)
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
        self.pixel_format = encoder.pixel_format(first.pixel_format, self.target)
        height, width = first.picture.pixels.shape[:2]
        layout = av.VideoFormat(self.pixel_format, width, height)
        if encoder.name in ("libx264", "libx265") and (
            (width % 2 and layout.chroma_width() * 2 == width + 1)
            or (height % 2 and layout.chroma_height() * 2 == height + 1)
        ):
            raise VideoError(
                f"{encoder.name} takes no {self.pixel_format} of {width}x{height}, an odd size; "
                "name another encoder, such as libvpx-vp9 or ffv1"
            )
        rate = video.guessed_rate or video.average_rate or Fraction(25)
        try:
            self.stream = output.add_stream(encoder.name, rate=rate, options=dict(encoder.options))
        except (av.FFmpegError, ValueError) as error:
            raise self._cannot_hold(f"{encoder.name} ({reason_of(error)})") from None
        context: Any = self.stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, self.pixel_format
        tick = video.time_base or 1 / rate
        if encoder.name in _CONSTANT_RATE or (encoder.name == "mpeg4" and tick.denominator > 65535):
            tick = 1 / rate
        context.time_base = self.tick = tick
        source = av.VideoFormat(first.pixel_format)
        suffix = self.target.suffix.lower()
        colour = target_colour(first.colour, source, layout, encoder.name, suffix, height)
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
        if encoder.name == "libx265" and self.target.suffix.lower() in _MP4:
            context.codec_tag = "hvc1"  # the only one that Apple's players take
        if first.matrix is not None:
            self.stream.set_display_matrix(first.matrix)
        self.stream.metadata.update(_clean(video.metadata))
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            options = ", ".join(f"{name}={value}" for name, value in encoder.options.items())
            raise InputError(
                f"{encoder.name} refuses {self.pixel_format} of {width}x{height} with "
                f"{options or 'its own settings'} ({reason_of(error)})"
            ) from None

    def _cannot_hold(self, what: str) -> VideoError:
        return VideoError(
            f"{self.target.suffix} cannot hold {what} of {self.reader.source}; "
            f"write {self.target.stem}.mkv, which holds nearly all"
        )

    def _encode(self, output: OutputContainer, item: Frame) -> None:
        assert self.maker is not None
        frame = self.maker(item.picture)
        given = self.reader.video.time_base or self.tick
        pts = round(item.pts * given / self.tick)
        if self.last_pts is not None:  # two frames within one tick
            pts = max(pts, self.last_pts + 1)
        frame.pts, frame.time_base = pts, self.tick
        self.last_pts = pts
        if item.duration:
            frame.duration = max(round(item.duration * given / self.tick), 1)
        self._mux(output, self.stream.encode(frame))

    def _copy(self, output: OutputContainer, packet: Packet) -> None:
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
            if last is not None and dts * base <= last:
                dts = int(last / base) + 1
            packet.dts, packet.pts = dts, max(pts, dts)
            self.last_dts[packet.stream.index] = dts * base
            output.mux_one(packet)


def _clean(metadata: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in metadata.items() if k.lower() not in _OWN}
