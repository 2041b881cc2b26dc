"""FFmpeg's pixel formats: what one holds, which holds most of another, and samples in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import RunnerUnavailableError

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame


def load_av() -> Any:
    """The module ``av``.

    Raises:
        RunnerUnavailableError: not installed.
    """
    try:
        import av
    except ImportError:
        raise RunnerUnavailableError(
            "video needs PyAV (Python 3.11 or newer): pip install restorert[video]"
        ) from None
    return av


def has_alpha(layout: VideoFormat) -> bool:
    """Whether frames of a format hold transparency."""
    return layout.has_palette or any(component.is_alpha for component in layout.components)


def is_rgb(layout: VideoFormat) -> bool:
    """Whether a format stores red, green and blue."""
    return bool(layout.is_rgb or layout.has_palette)


def is_grey(layout: VideoFormat) -> bool:
    """Whether a format stores one colour channel."""
    return not layout.has_palette and len(layout.components) - has_alpha(layout) == 1


def is_float(layout: VideoFormat) -> bool:
    """Whether samples are floating point."""
    return "f16" in layout.name or "f32" in layout.name


def bits_of(layout: VideoFormat) -> int:
    """Bits of a sample, 8 for less and for palettes; 16 stand for floating point."""
    if layout.has_palette:
        return 8
    bits = max(component.bits for component in layout.components)
    return min(max(bits, 8), 16)


def is_subsampled(layout: VideoFormat) -> bool:
    """Whether chroma has fewer samples than luma."""
    if is_rgb(layout) or is_grey(layout):
        return False
    name = type(layout)(layout.name, 64, 64)
    return name.chroma_width() < 64 or name.chroma_height() < 64


def plain_format(layout: VideoFormat) -> str:
    """The format of one sample, or one plane for each channel, that holds the same samples.

    Planes are little-endian; grey with alpha is packed, for FFmpeg has no planes of it.
    """
    if layout.name.startswith("yuvj"):
        return str(layout.name)
    bits, alpha = bits_of(layout), has_alpha(layout)
    depth = "" if bits == 8 else f"{bits}le"
    if is_rgb(layout):
        return f"gbr{'ap' if alpha else 'p'}{depth}"
    if is_grey(layout):
        return f"ya{'8' if bits == 8 else '16le'}" if alpha else f"gray{depth}"
    sized = type(layout)(layout.name, 64, 64)
    kinds = {(64, 64): "444", (32, 64): "422", (32, 32): "420", (64, 32): "440", (16, 64): "411"}
    kind = kinds.get((sized.chroma_width(), sized.chroma_height()), "410")
    return f"yuv{'a' if alpha else ''}{kind}p{depth}"


def nearest_format(given: str, formats: Sequence[str], *, alpha: bool) -> str | None:
    """Which of ``formats`` loses least of ``given``; None if all of them lose its transparency.

    Args:
        given: a pixel format.
        formats: those to choose from; none mean that all will do.
        alpha: whether the transparency of ``given`` must be held.
    """
    codec = load_av().codec.codec
    if given in formats or not formats:
        return given
    alpha = alpha and has_alpha(load_av().VideoFormat(given))
    best, loss = codec.find_best_pix_fmt_of_list(formats, given, has_alpha=alpha)
    if loss & codec.PixFmtLoss.ALPHA and alpha:
        return None
    return str(best if isinstance(best, str) else best.name)


def convert(frame: VideoFrame, pixel_format: str, **colour: int) -> VideoFrame:
    """A frame in another format, through swscale.

    Without ``colour`` (arguments of PyAV's ``reformat``) no matrix or range is applied: samples
    are moved, shifted to another depth, and chroma is resampled where its size differs.
    """
    if frame.format.name == pixel_format:
        return frame
    kind = load_av().video.reformatter.Interpolation
    # Without these swscale takes chroma of the nearest pixel and rounds down.
    flags = kind.BICUBIC | kind.ACCURATE_RND | kind.FULL_CHR_H_INT | kind.FULL_CHR_H_INP
    flags = int(flags | kind.BITEXACT)
    if not colour:
        # Floating point is full range whatever is said.
        kept = 2 if "f32" in frame.format.name + pixel_format else 1
        colour = {"src_colorspace": 1, "dst_colorspace": 1}
        colour |= {"src_color_range": kept, "dst_color_range": kept}
    return frame.reformat(format=pixel_format, interpolation=flags, **colour)


def samples_of(frame: VideoFrame) -> list[NDArray[Any]]:
    """A frame's planes, [height, width] or, if it packs channels, [height, width, channels].

    Views into the frame's memory, uint8 or uint16: what is written there changes the frame.
    """
    layout = frame.format
    deep = bits_of(layout) > 8
    packed = len(frame.planes) == 1
    channels = layout.padded_bits_per_pixel // (16 if deep else 8) if packed else 1
    found = []
    for plane in frame.planes:
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        samples = lines[:, : plane.width * channels * (1 + deep)]
        if deep:
            samples = samples.view("<u2")
        found.append(
            samples.reshape(plane.height, plane.width, channels) if channels > 1 else samples
        )
    return found
