"""FFmpeg's video frames to and from pictures: every choice of pixel format, depth and colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from restorert.errors import RunnerUnavailableError
from restorert.pictures.picture import Picture

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


# AVColorSpace -> coefficients of swscale: BT.709, FCC, BT.470BG and SMPTE 170M (the same), SMPTE
# 240M, BT.2020.
_COEFFICIENTS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_LIMITED, _FULL = 1, 2


@dataclasses.dataclass(frozen=True)
class Colour:
    """The meaning of YUV, in FFmpeg's numbers (AVColorSpace etc.); 2: unspecified, 0: RGB."""

    matrix: int
    range: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colour:
        """What a decoded frame is tagged with."""
        stated = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
        return cls(*map(int, stated))

    def mark(self, target: Any) -> None:
        """Tag a frame, or an encoder's context."""
        target.colorspace, target.color_range = self.matrix, self.range
        target.color_primaries, target.color_trc = self.primaries, self.transfer

    def scaling(self, layout: VideoFormat, height: int) -> tuple[int | None, int]:
        """Coefficients and range for swscale; without a tag, those that players assume."""
        if layout.is_rgb:
            return None, _FULL
        matrix = _COEFFICIENTS.get(self.matrix, 1 if height >= 720 else 5)
        if self.range in (_LIMITED, _FULL):
            return matrix, self.range
        return matrix, _FULL if layout.name.startswith("yuvj") else _LIMITED


# FFmpeg's names of [H, W, 1, 3 or 4] in memory, of 8 and of 16 bits.
_PACKED = {1: ("gray", "gray16le"), 3: ("rgb24", "rgb48le"), 4: ("rgba", "rgba64le")}


def _packed(layout: VideoFormat) -> str:
    """The packed format that holds all that another holds."""
    if layout.has_palette:
        return "rgba"
    components = layout.components
    deep = max(component.bits for component in components) > 8
    return _PACKED[1 if len(components) == 1 else 3 + has_alpha(layout)][deep]


def has_alpha(layout: VideoFormat) -> bool:
    """Whether frames of a format hold transparency."""
    return any(component.is_alpha for component in layout.components)


def nearest_format(given: str, formats: Sequence[str]) -> str | None:
    """Which of ``formats`` loses least of ``given``; None if all of them lose transparency."""
    codec = load_av().codec.codec
    if given in formats or not formats:
        return given
    alpha = has_alpha(load_av().VideoFormat(given))
    best, loss = codec.find_best_pix_fmt_of_list(formats, given, has_alpha=alpha)
    if loss & codec.PixFmtLoss.ALPHA:
        return None
    return str(best if isinstance(best, str) else best.name)


def _reformat(frame: VideoFrame, pixel_format: str, **colour: int | None) -> VideoFrame:
    if frame.format.name == pixel_format:
        return frame
    kind = load_av().video.reformatter.Interpolation
    # Without these swscale takes chroma of the nearest pixel and rounds down.
    flags = kind.BICUBIC | kind.ACCURATE_RND | kind.FULL_CHR_H_INT | kind.FULL_CHR_H_INP
    flags = int(flags | kind.BITEXACT)
    return frame.reformat(format=pixel_format, interpolation=flags, **colour)


def to_picture(frame: VideoFrame) -> Picture:
    """A decoded frame as RGB or grey over the full range of 8 or 16 bits."""
    matrix, given = Colour.of(frame).scaling(frame.format, frame.height)
    colours = {"src_colorspace": matrix, "src_color_range": given, "dst_color_range": _FULL}
    return Picture.of_samples(_reformat(frame, _packed(frame.format), **colours).to_ndarray())


def to_frame(picture: Picture, pixel_format: str, colour: Colour) -> VideoFrame:
    """The inverse of `to_picture`, in the encoder's pixel format."""
    av = load_av()
    samples = picture.samples
    height, _, count = samples.shape
    array = np.ascontiguousarray(samples[..., 0] if count == 1 else samples)
    frame = av.VideoFrame.from_ndarray(array, _PACKED[count][samples.dtype == np.uint16])
    matrix, wanted = colour.scaling(av.VideoFormat(pixel_format), height)
    colours = {"src_color_range": _FULL, "dst_colorspace": matrix, "dst_color_range": wanted}
    frame = _reformat(frame, pixel_format, **colours)
    colour.mark(frame)
    return frame
