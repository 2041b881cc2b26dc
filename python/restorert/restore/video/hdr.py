"""What a video says beside its frames: HDR10's mastering data, and what cannot be passed on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"

LOST = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "A53_CC": "closed captions",
    "ICC_PROFILE": "the colour profile",
    "S12M_TIMECODE": "timecodes",
    "FILM_GRAIN_PARAMS": "film grain parameters",
}
"""FFmpeg's names of side data of frames that is not passed on -> what it is."""

# Encoder -> its option of options, the names of mastering display and light level in there, and the
# units of chromaticity and of candelas a square metre.
_ENCODERS = {
    "libx265": ("x265-params", "master-display", "max-cll", 50000, 10000),
    "libx264": ("x264-params", "mastering-display", "cll", 50000, 10000),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", None, None),
}


def hdr_options(
    encoder: str, side: Mapping[str, bytes], given: Mapping[str, str]
) -> dict[str, str] | None:
    """The options by which an encoder writes HDR10's mastering data; None if it has none.

    Args:
        encoder: FFmpeg's name of it.
        side: side data of a frame by FFmpeg's names.
        given: the encoder's options so far, whose parameters are kept.
    """
    if encoder not in _ENCODERS:
        return None
    option, mastering_name, light_name, place, candela = _ENCODERS[encoder]
    parameters = [given[option]] if given.get(option) else []
    said = given.get(option, "")
    if (mastering := _mastering(side.get(MASTERING, b""))) and mastering_name not in said:
        numbers = [
            f"{value:.5f}" if unit is None else str(round(value * unit))
            for value, unit in zip(mastering, [place] * 8 + [candela] * 2, strict=True)
        ]
        red, green, blue, white, luminance = (
            ",".join(numbers[at : at + 2]) for at in range(0, 10, 2)
        )
        parameters.append(f"{mastering_name}=G({green})B({blue})R({red})WP({white})L({luminance})")
    if len(side.get(LIGHT, b"")) >= 8 and light_name not in said:
        largest, average = np.frombuffer(side[LIGHT][:8], "u4")
        parameters.append(f"{light_name}={largest},{average}")
    return {option: ":".join(parameters)} if parameters else {}


def _mastering(data: bytes) -> list[float]:
    """X and y of red, green, blue and white, highest and lowest luminance; or nothing."""
    if len(data) < 88:
        return []
    # struct AVMasteringDisplayMetadata: ten rationals, and whether the two groups are set
    numbers = np.frombuffer(data[:88], "i4")
    if not numbers[20] or not numbers[21] or not numbers[1:20:2].all():
        return []
    values = (numbers[0:20:2] / numbers[1:20:2]).tolist()
    return [*values[:8], values[9], values[8]]
