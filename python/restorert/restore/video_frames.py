"""Video frames as FFmpeg holds them, and as pictures: formats, bit depths, colour."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from restorert.errors import RunnerUnavailableError
from restorert.pictures.files import Picture

if TYPE_CHECKING:
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


@dataclasses.dataclass(frozen=True)
class Colour:
    """How YUV is meant, in FFmpeg's numbers (AVColorSpace and so on); 2 is not said, 0 is RGB."""

    matrix: int
    range: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: VideoFrame) -> Colour:
        return cls(
            int(frame.colorspace),
            int(frame.color_range),
            int(frame.color_primaries),
            int(frame.color_trc),
        )


# From AVColorSpace to the coefficients of swscale: BT.709, FCC, BT.470BG and SMPTE 170M (one and
# the same), SMPTE 240M, BT.2020.
_COEFFICIENTS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_FULL, _LIMITED = 2, 1


def _coefficients(colour: Colour, height: int) -> int:
    if colour.matrix in _COEFFICIENTS:
        return _COEFFICIENTS[colour.matrix]
    return 1 if height >= 720 else 5


def _yuv_range(pixel_format: str, colour: Colour) -> int:
    if colour.range in (_LIMITED, _FULL):
        return colour.range
    return _FULL if pixel_format.startswith("yuvj") else _LIMITED


def _array_format(pixel_format: Any) -> str:
    """The packed format that holds all of another: grey or RGB, 8 or 16 bits, alpha or none."""
    components = pixel_format.components
    if pixel_format.has_palette:
        return "rgba"
    deep = max(component.bits for component in components) > 8
    alpha = any(component.is_alpha for component in components)
    if len(components) == 1:
        return "gray16le" if deep else "gray"
    return {
        (False, False): "rgb24",
        (False, True): "rgba",
        (True, False): "rgb48le",
        (True, True): "rgba64le",
    }[deep, alpha]


def _scaler_flags() -> int:
    kind = load_av().video.reformatter.Interpolation
    # Without these swscale takes chroma of the nearest pixel and rounds down.
    return int(
        kind.BICUBIC | kind.ACCURATE_RND | kind.FULL_CHR_H_INT | kind.FULL_CHR_H_INP | kind.BITEXACT
    )


def to_picture(frame: VideoFrame) -> Picture:
    """A decoded frame as RGB or grey over the full range of 8 or 16 bits."""
    colour = Colour.of(frame)
    packed = _array_format(frame.format)
    grey = packed.startswith("gray")
    full = load_av().video.reformatter.ColorRange.JPEG
    if frame.format.name != packed:
        frame = frame.reformat(
            format=packed,
            src_colorspace=None if frame.format.is_rgb else _coefficients(colour, frame.height),
            src_color_range=_FULL if frame.format.is_rgb else _yuv_range(frame.format.name, colour),
            dst_color_range=full,
            interpolation=_scaler_flags(),
        )
    values = frame.to_ndarray()
    if grey:
        return Picture(pixels=np.ascontiguousarray(values[:, :, None]))
    if values.shape[2] == 4:
        return Picture(
            pixels=np.ascontiguousarray(values[:, :, :3]),
            alpha=np.ascontiguousarray(values[:, :, 3]),
        )
    return Picture(pixels=np.ascontiguousarray(values))


def to_frame(picture: Picture, pixel_format: str, colour: Colour) -> VideoFrame:
    """The inverse of `to_picture`, in a pixel format of the encoder's."""
    av = load_av()
    pixels = picture.pixels
    deep = pixels.dtype == np.uint16
    if pixels.shape[2] == 1:
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[:, :, 0]), format="gray16le" if deep else "gray"
        )
    elif picture.alpha is not None:
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([pixels, picture.alpha[:, :, None]], axis=2),
            format="rgba64le" if deep else "rgba",
        )
    else:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24")
    rgb = av.VideoFormat(pixel_format).is_rgb
    if frame.format.name != pixel_format:
        frame = frame.reformat(
            format=pixel_format,
            src_color_range=_FULL,
            dst_colorspace=None if rgb else _coefficients(colour, pixels.shape[0]),
            dst_color_range=_FULL if rgb else _yuv_range(pixel_format, colour),
            interpolation=_scaler_flags(),
        )
    frame.colorspace = colour.matrix
    frame.color_range = colour.range
    frame.color_primaries = colour.primaries
    frame.color_trc = colour.transfer
    return frame
