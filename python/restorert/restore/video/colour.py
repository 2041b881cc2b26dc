"""What YUV means, and in which of its kinds a frame is written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.restore.video.frames import is_float, is_grey, is_rgb

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame

# FFmpeg's numbers: AVColorSpace, AVColorRange.
RGB, BT709, UNSPECIFIED, BT470BG, SMPTE170M, YCGCO, BT2020 = 0, 1, 2, 5, 6, 8, 9
LIMITED, FULL = 1, 2

# AVColorSpace -> the shares of red and blue in luma: ITU-R BT.709, FCC title 47, BT.601 (BT.470BG
# and SMPTE 170M), SMPTE 240M, BT.2020 (without constant luminance).
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
SCALERS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""AVColorSpace -> the coefficients' number in swscale."""

# Those whose result is no matrix times RGB, or that this FFmpeg's readers do not name.
_UNREADABLE = {
    10: "BT.2020 with constant luminance",
    11: "SMPTE 2085",
    13: "chroma-derived constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-R",
    17: "YCgCo-R",
}

# AVColorPrimaries -> the matrix that goes with them.
_OF_PRIMARIES = {1: BT709, 5: BT470BG, 6: SMPTE170M, 7: 7, 9: BT2020}

# Encoders whose bits say which range they hold (FFmpeg's AV_CODEC_CONFIG_COLOR_RANGE).
FULL_RANGE = frozenset(
    ("libx264", "libx265", "libsvtav1", "libvpx-vp9", "vc2", "ljpeg", "mjpeg_qsv")
    + ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_amf", "hevc_amf")
    + ("h264_qsv", "hevc_qsv", "av1_qsv", "vp9_qsv")
)
FULL_RANGE_ONLY = frozenset({"mjpeg", "amv", "roqvideo"})
"""Encoders of full range, whose matrix is that of BT.601 (JFIF)."""
# These hold any numbers and say nothing of them; Matroska does.
_BY_CONTAINER = frozenset({"ffv1", "rawvideo", "ffvhuff", "huffyuv", "utvideo"})
# VP8 has one matrix, that of BT.601, and limited range.
_BT601_ONLY = FULL_RANGE_ONLY | {"libvpx", "vp8_v4l2m2m"}


# Encoders whose bits hold the matrix as well, beside those of `FULL_RANGE`.
_TELLING = FULL_RANGE | {"prores", "prores_aw", "prores_ks", "mpeg2video"}
_MP4 = (".mp4", ".m4v", ".mov")
# Matrix -> the primaries and transfer function that go with it.
_COMPANIONS = {1: (1, 1), 4: (4, 4), 5: (5, 6), 6: (6, 6), 7: (7, 7), 9: (9, 14)}


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

    @property
    def unreadable(self) -> str | None:
        """What the matrix is called, if it cannot be computed."""
        if self.matrix == 12 and self.primaries not in _OF_PRIMARIES:
            return "chroma-derived"
        return _UNREADABLE.get(self.matrix)

    def known_matrix(self, height: int) -> int:
        """The matrix; without a tag, the one that players assume: BT.709 from 720 lines on."""
        if self.matrix == 12:
            return _OF_PRIMARIES.get(self.primaries, BT709)
        if self.matrix in _LUMA or self.matrix == YCGCO:
            return self.matrix
        return BT709 if height >= 720 else SMPTE170M

    def is_full(self, layout: VideoFormat) -> bool:
        """Whether samples use the whole range; without a tag, as FFmpeg assumes."""
        if is_rgb(layout) or layout.name.startswith("yuvj") or is_float(layout):
            return True
        if self.range in (LIMITED, FULL):
            return self.range == FULL
        return is_grey(layout)


def target_colour(
    given: Colour, source: VideoFormat, target: VideoFormat, encoder: str, suffix: str, height: int
) -> Colour:
    """The colour in which frames are written: the source's, as far as the target can hold it.

    MP4 and QuickTime files name matrix, primaries and transfer function together or not at all:
    where the encoder's own bits name none and the source only some, their companions are added.

    Args:
        given: what the source's frames are tagged with.
        source: their pixel format.
        target: the encoder's pixel format.
        encoder: its name.
        suffix: of the file, such as ".mkv".
        height: of the frames, for sources that name no matrix.
    """
    colour = _target_colour(given, source, target, encoder, suffix, height)
    stated = (colour.matrix, colour.primaries, colour.transfer)
    if suffix not in _MP4 or encoder in _TELLING or is_rgb(target):
        return colour
    if all(value == UNSPECIFIED for value in stated):
        return colour
    matrix = colour.known_matrix(height)
    primaries, transfer = _COMPANIONS.get(matrix, (BT709, BT709))
    return dataclasses.replace(
        colour,
        matrix=matrix,
        primaries=primaries if colour.primaries == UNSPECIFIED else colour.primaries,
        transfer=transfer if colour.transfer == UNSPECIFIED else colour.transfer,
    )


def _target_colour(
    given: Colour, source: VideoFormat, target: VideoFormat, encoder: str, suffix: str, height: int
) -> Colour:
    if is_rgb(target):
        # A source of RGB keeps its tag, whatever that says.
        kept = given.range if is_rgb(source) else FULL
        return dataclasses.replace(given, matrix=RGB, range=kept)
    matrix, full = given.matrix, given.is_full(source)
    if encoder in _BT601_ONLY:
        kept = FULL if encoder in FULL_RANGE_ONLY else LIMITED
        return dataclasses.replace(given, matrix=BT470BG, range=kept)
    if is_grey(target):
        # Nothing is agreed on for grey: its range is said, and where that is lost it is full, as
        # FFmpeg and all picture formats assume.
        matrix = UNSPECIFIED if matrix == RGB else matrix
        full = full or not (encoder in FULL_RANGE or suffix == ".mkv")
        return dataclasses.replace(given, matrix=matrix, range=FULL if full else LIMITED)
    if is_rgb(source) or matrix == RGB:
        # Both what is tagged and what players guess that read no tags.
        guessed = dataclasses.replace(given, matrix=UNSPECIFIED).known_matrix(height)
        matrix = _OF_PRIMARIES.get(given.primaries, guessed)
    holds = encoder in FULL_RANGE or (encoder in _BY_CONTAINER and suffix == ".mkv")
    if is_rgb(source) or (full and not holds):
        return dataclasses.replace(given, matrix=matrix, range=LIMITED)
    return dataclasses.replace(given, matrix=matrix, range=FULL if full else given.range)


def rgb_to_yuv(matrix: int) -> NDArray[np.float64]:
    """[3, 3], from R, G, B in [0, 1] to Y in [0, 1] and U, V in [-0.5, 0.5].

    ITU-R BT.709, section 3, with other shares of luma for other matrices; YCgCo has Cg as U and Co
    as V.
    """
    if matrix == YCGCO:
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
    red, blue = _LUMA[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    u = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    v = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.stack([luma, u, v])


def codes(bits: int, *, full: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and offset [3] from Y in [0, 1] and U, V in [-0.5, 0.5] to samples of a depth."""
    middle = 2.0 ** (bits - 1)
    if full:
        return np.full(3, 2.0**bits - 1), np.array([0, middle, middle])
    unit = 2.0 ** (bits - 8)
    return np.array([219, 224, 224]) * unit, np.array([16 * unit, middle, middle])
