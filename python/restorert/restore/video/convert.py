"""Frames to pictures and back: matrix, range and depth exactly, chroma between its sites.

swscale rounds 8-bit YUV of limited range as it should, and is fast, so that it does those. For
full range its samples sink by half a level each time, and above 8 bits its white is 65280 of 65535;
these are computed here, and swscale only resamples chroma.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.pictures.picture import Picture
from restorert.pictures.pixels import to_8_bits
from restorert.restore.video.colour import FULL, LIMITED, SCALERS, Colour, codes, rgb_to_yuv
from restorert.restore.video.frames import (
    bits_of,
    convert,
    has_alpha,
    is_grey,
    is_rgb,
    is_subsampled,
    load_av,
    plain_format,
    samples_of,
)

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_FLOAT = re.compile("f(16|32)(le|be)$")

_BLOCK = 1 << 15
"""Pixels that are computed at a time, so that they stay in a core's cache."""


def to_picture(frame: VideoFrame) -> Picture:
    """A decoded frame as RGB or grey over the full range of 8 or, of deeper ones, 16 bits."""
    layout = frame.format
    if is_grey(layout):
        return _of_grey(frame)
    matrix = Colour.of(frame).known_matrix(frame.height)
    if bits_of(layout) > 8 or not (is_rgb(layout) or matrix in SCALERS):
        return _of_deep_rgb(frame) if is_rgb(layout) else _of_yuv(frame)
    packed = "rgba" if has_alpha(layout) else "rgb24"
    if is_rgb(layout):
        return Picture.of_samples(samples_of(convert(frame, packed))[0])
    given = FULL if Colour.of(frame).is_full(layout) else LIMITED
    found = convert(
        frame, packed, src_colorspace=SCALERS[matrix], src_color_range=given, dst_color_range=FULL
    )
    return Picture.of_samples(samples_of(found)[0])


def _of_grey(frame: VideoFrame) -> Picture:
    layout = frame.format
    alpha = has_alpha(layout)
    if kind := _FLOAT.search(layout.name):
        return Picture.of_samples(_of_floats(frame, 1 + alpha, kind))
    frame = convert(frame, plain_format(layout))
    (plane,) = samples_of(frame)
    scale, offset = codes(bits_of(frame.format), full=Colour.of(frame).is_full(layout))
    largest = 255 if plane.dtype == np.uint8 else 65535
    grey = plane[..., 0] if alpha else plane
    pixels = _scaled(grey, largest / scale[0], -offset[0] * largest / scale[0], largest)
    return Picture(pixels[..., None], np.ascontiguousarray(plane[..., 1]) if alpha else None)


def _of_deep_rgb(frame: VideoFrame) -> Picture:
    factor = 65535 / (2 ** bits_of(frame.format) - 1)
    g, b, r, *alpha = samples_of(convert(frame, plain_format(frame.format)))
    pixels = np.empty((*r.shape, 3), np.uint16)
    wanted = [pixels[..., channel] for channel in range(3)]
    _matrix([r, g, b], np.eye(3) * factor, np.zeros(3), 65535, wanted)
    return Picture(pixels, _scaled(alpha[0], factor, 0, 65535) if alpha else None)


def _of_yuv(frame: VideoFrame) -> Picture:
    layout, colour = frame.format, Colour.of(frame)
    bits, alpha = bits_of(layout), has_alpha(layout)
    direct = not is_subsampled(layout) and not alpha
    read = plain_format(layout) if direct else f"yuv{'a' if alpha else ''}444p16le"
    planes = samples_of(convert(frame, read))
    shift = 0 if direct else 16 - bits
    scale, offset = codes(bits, full=colour.is_full(layout))
    largest = 255 if bits == 8 else 65535
    # rgb = inverse @ ((samples - offset) / scale)
    inverse = np.linalg.inv(rgb_to_yuv(colour.known_matrix(frame.height))) * largest
    factors, constant = inverse / (scale * 2.0**shift), -inverse @ (offset / scale)
    pixels = np.empty((*planes[0].shape, 3), np.uint8 if bits == 8 else np.uint16)
    _matrix(planes[:3], factors, constant, largest, [pixels[..., c] for c in range(3)])
    if not alpha:
        return Picture(pixels)
    return Picture(pixels, _scaled(planes[3] >> shift, largest / (2**bits - 1), 0, largest))


def _of_floats(frame: VideoFrame, channels: int, kind: re.Match[str]) -> NDArray[Any]:
    """16-bit samples of grey in floating point, which swscale takes for limited range."""
    (plane,) = frame.planes
    dtype = np.dtype(f"{'<' if kind[2] == 'le' else '>'}f{int(kind[1]) // 8}")
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    lines = np.ascontiguousarray(lines[:, : plane.width * channels * dtype.itemsize])
    floats = np.nan_to_num(lines.view(dtype).astype(np.float32).clip(0, 1))
    return np.rint(floats * 65535).astype(np.uint16).reshape(plane.height, plane.width, channels)


def _scaled(samples: NDArray[Any], factor: float, offset: float, largest: int) -> NDArray[Any]:
    """Samples times a factor plus an offset, rounded and clamped to [0, largest]."""
    dtype = np.uint8 if largest < 256 else np.uint16
    if factor == 1 and not offset:
        return np.ascontiguousarray(samples, dtype)
    # A table of all values is exact and faster than arithmetic on a whole picture.
    values = np.arange(256 if samples.dtype == np.uint8 else 65536) * factor + offset
    return np.clip(np.rint(values), 0, largest).astype(dtype)[samples]


def _matrix(
    planes: list[NDArray[Any]],
    matrix: NDArray[Any],
    offset: NDArray[Any],
    largest: int,
    found: list[NDArray[Any]],
) -> None:
    """Fill ``found`` with a matrix times three planes [H, W], rounded and clamped."""
    height, width = planes[0].shape
    matrix, offset = matrix.astype(np.float32), (offset + 0.5).astype(np.float32)[:, None]
    rows = max(_BLOCK // width, 1)
    block = np.empty((3, min(rows, height), width), np.float32)
    for top in range(0, height, rows):
        part = block[:, : min(rows, height - top)]
        for channel in range(3):
            part[channel] = planes[channel][top : top + rows]
        result = matrix @ part.reshape(3, -1)
        result += offset
        np.maximum(result, 0, out=result)
        np.minimum(result, largest, out=result)  # and the fraction is cut off
        for plane, line in zip(found, result, strict=False):
            plane[top : top + rows] = line.reshape(-1, width)


def chroma_location(frame: VideoFrame) -> str:
    """Where a decoded frame's chroma lies: "left", "topleft" or "center" (also if unknown).

    PyAV does not show AVFrame.chroma_location, but swscale heeds it: the frame's own samples are
    replaced by slopes, and where these come out tells where it lies.
    """
    if not is_subsampled(frame.format):
        return "center"
    small = frame.reformat(width=32, height=32, format="yuv420p")
    for samples in samples_of(small):
        lines, columns = np.mgrid[: samples.shape[0], : samples.shape[1]]
        samples[:] = 60 + 4 * columns + 4 * lines
    v = samples_of(convert(small, "yuv444p"))[2]
    # Between two samples, 4 apart: at the site itself 0, beside it -1, in each direction.
    lag = round(60 + 4 * 8 + 4 * 8 - float(v[16, 16]))
    return {0: "topleft", 1: "left"}.get(lag, "center")


def _yuv(name: str) -> str:
    """The name of a format of planes without what says transparency or full range."""
    return name.replace("yuva", "yuv").replace("yuvj", "yuv")


class FrameMaker:
    """The inverse of `to_picture`, in an encoder's pixel format and colour.

    Args:
        pixel_format: the encoder's.
        colour: what the frames mean and are tagged with.
        width, height: of the frames.
        location: where chroma lies, see `chroma_location`.
    """

    def __init__(
        self, pixel_format: str, colour: Colour, width: int, height: int, location: str
    ) -> None:
        av = load_av()
        self.pixel_format, self.colour = pixel_format, colour
        self.layout = av.VideoFormat(pixel_format)
        self.bits, self.alpha = bits_of(self.layout), has_alpha(self.layout)
        self.full = colour.is_full(self.layout)
        self.matrix = colour.known_matrix(height)
        self.size = width, height
        self.location = location
        self._frames: dict[str, Any] = {}

    def __call__(self, picture: Picture) -> VideoFrame:
        """The frame, without a time."""
        frame = convert(self._frame(picture), self.pixel_format)
        self.colour.mark(frame)
        return frame

    def _frame(self, picture: Picture) -> VideoFrame:
        pixels = picture.pixels
        grey, deep = pixels.shape[2] == 1, pixels.dtype == np.uint16
        if is_rgb(self.layout) and self.bits == 8:
            # An encoder may hold on to a frame that is not converted.
            packed = self._packed_format
            return self._packed(
                picture, self._new(packed) if packed == self.pixel_format else self._scratch(packed)
            )
        fast = self.bits == 8 and not (deep or grey or self.full or is_grey(self.layout))
        if fast and self.matrix in SCALERS:
            frame = self._packed(picture, self._scratch(self._packed_format))
            return convert(
                frame, plain_format(self.layout), src_color_range=FULL, dst_color_range=LIMITED,
                dst_colorspace=SCALERS[self.matrix],
            )  # fmt: skip
        return self._planar(picture)

    @property
    def _packed_format(self) -> str:
        return "rgba" if self.alpha else "rgb24"

    def _packed(self, picture: Picture, frame: VideoFrame) -> VideoFrame:
        """Fill a frame of 8-bit RGB, or RGBA."""
        (samples,) = samples_of(frame)
        samples[..., :3] = to_8_bits(picture.pixels)
        if self.alpha:
            samples[..., 3] = 255 if picture.alpha is None else to_8_bits(picture.alpha)
        return frame

    def _planar(self, picture: Picture) -> VideoFrame:
        """Samples computed here, with chroma as in the target, in planes."""
        pixels, name = picture.pixels, plain_format(self.layout)
        given = float(np.iinfo(pixels.dtype).max)
        largest = 2**self.bits - 1
        frame = self._new(name)
        planes = samples_of(frame)
        if planes[0].ndim == 3:  # grey with alpha, in one plane
            planes = [planes[0][..., 0], planes[0][..., 1]]
        if self.alpha:
            depth = 2 ** (8 if planes[-1].dtype == np.uint8 else bits_of(frame.format)) - 1
            planes[-1][:] = (
                depth if picture.alpha is None else _scaled(picture.alpha, depth / given, 0, depth)
            )
        if is_rgb(self.layout):
            sources = [pixels[..., min(c, pixels.shape[2] - 1)] for c in (1, 2, 0)]
            _matrix(sources, np.eye(3) * largest / given, np.zeros(3), largest, planes[:3])
            return frame
        scale, offset = codes(bits_of(frame.format), full=self.full)
        largest = 2 ** bits_of(frame.format) - 1
        if pixels.shape[2] == 1:
            planes[0][:] = _scaled(pixels[..., 0], scale[0] / given, offset[0], largest)
            if not is_grey(self.layout):
                planes[1][:] = planes[2][:] = 2 ** (self.bits - 1)
            return frame
        forward = rgb_to_yuv(self.matrix) / given
        sources = [pixels[..., channel] for channel in range(3)]
        if not is_subsampled(self.layout):
            wanted = planes[: 1 if is_grey(self.layout) else 3]
            _matrix(sources, forward * scale[:, None], offset, largest, wanted)
        else:
            self._subsampled(planes, sources, forward)
        return frame

    def _subsampled(
        self, planes: list[NDArray[Any]], sources: list[NDArray[Any]], forward: NDArray[Any]
    ) -> None:
        """Fill Y, U and V; chroma is averaged with 16 bits, where FFmpeg has such, and rounded."""
        scale, offset = codes(self.bits, full=self.full)
        kind, _, depth = _yuv(plain_format(self.layout)).partition("p")
        if kind in ("yuv420", "yuv422"):
            shift, depth = 16 - self.bits, "16le"
        else:
            shift = 0
        largest = 2 ** (self.bits + shift) - 1
        forward = forward * scale[:, None] * 2**shift
        whole = self._scratch(f"yuv444p{depth}")
        _matrix(sources, forward, offset * 2**shift, largest, samples_of(whole))
        small = samples_of(convert(whole, f"{kind}p{depth}"))
        half = (1 << shift) >> 1
        for channel in range(3):
            rounded = (small[channel].astype(np.uint32) + half) >> shift
            planes[channel][:] = np.minimum(rounded, 2**self.bits - 1)

    def _new(self, name: str) -> VideoFrame:
        return load_av().VideoFrame(*self.size, name)

    def _scratch(self, name: str) -> VideoFrame:
        """A frame to fill and convert, the same each time, that says where chroma is to lie."""
        if name not in self._frames:
            frame = self._new(name)
            graph = load_av().filter.Graph()
            width, height = self.size
            nodes = (
                graph.add(
                    "buffer", video_size=f"{width}x{height}", pix_fmt=name, time_base="1/25",
                    pixel_aspect="1/1",
                ),
                graph.add("setparams", f"chroma_location={self.location}"),
                graph.add("buffersink"),
            )  # fmt: skip
            graph.link_nodes(*nodes).configure()
            frame.pts = 0
            graph.push(frame)
            self._frames[name] = graph.pull()
        return self._frames[name]
