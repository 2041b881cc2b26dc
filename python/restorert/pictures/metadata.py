"""Metadata of picture files: EXIF, resolution, orientation."""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

DESCRIPTIVE_TAGS = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Copyright,
)
"""IFD 0 tags that describe the picture; the others describe how the file stores it."""

NESTED = (IFD.Exif, IFD.GPSInfo)
"""Directories that IFD 0 points to and that describe the picture too."""

EXIF_HEADER = b"Exif\0\0"
"""Stands before the block in JPEG, and in what Pillow reads and writes."""

_DPI_RANGE = (1.0, 65535.0)  # what a JPEG header can hold; nothing else is a real resolution


def parse_exif(block: bytes | None) -> Image.Exif:
    """An EXIF block, from its byte-order mark on, as Pillow's tags; no tags for no block."""
    tags = Image.Exif()
    tags.load(EXIF_HEADER + (block or b""))
    return tags


def descriptive_tags(block: bytes | None) -> dict[int, Any]:
    """The tags of an EXIF block that describe the picture, its EXIF and GPS directories included.

    Empty where the block is damaged, which must not stop a restoration.
    """
    try:
        exif = parse_exif(block)
        found: dict[int, Any] = {tag: exif[tag] for tag in DESCRIPTIVE_TAGS if tag in exif}
        for tag in NESTED:
            directory = {
                key: value
                for key, value in exif.get_ifd(tag).items()
                if key not in (IFD.Interop, IFD.MakerNote)  # hold offsets into the old block
            }
            if directory:
                found[tag] = directory
    except Exception:  # Pillow raises anything on hostile blocks
        return {}
    return found


def reset_exif(block: bytes) -> tuple[int, bytes | None]:
    """The orientation of an EXIF block, and the block with orientation 1 and without thumbnail.

    Changed in place: makers' notes hold offsets that re-serialising the block would break. None
    where no reader could follow the block.
    """
    changed = bytearray(block)
    orientation = 1
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(changed[:2])]
        (offset,) = struct.unpack_from(order + "4xL", changed)
        (count,) = struct.unpack_from(order + "H", changed, offset)
        end = offset + 2 + 12 * count
        for entry in range(offset + 2, end, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", changed, entry)
            if tag == Base.Orientation and kind == 3:
                orientation = value
                struct.pack_into(order + "H", changed, entry + 8, 1)
        struct.pack_into(order + "L", changed, end, 0)
    except (KeyError, struct.error):
        return 1, None
    return orientation, bytes(changed)


def resolution(tags: Any) -> tuple[float, float] | None:
    """Resolution tags in pixels per inch; None if they are absent, implausible or without unit."""
    try:
        scale = {2: 1.0, 3: 2.54}[tags.get(Base.ResolutionUnit, 2)]
        dpi = tuple(float(tags[key]) * scale for key in (Base.XResolution, Base.YResolution))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return sensible_dpi(dpi)


def set_resolution(tags: Any, dpi: tuple[float, float]) -> None:
    """The inverse of `resolution`."""
    tags[Base.XResolution], tags[Base.YResolution], tags[Base.ResolutionUnit] = (*dpi, 2)


def sensible_dpi(dpi: Any) -> tuple[float, float] | None:
    """``dpi`` if it is a plausible pair, else None."""
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    low, high = _DPI_RANGE
    x, y = (float(value) for value in dpi)
    return (x, y) if low <= x <= high and low <= y <= high else None


def exif_dpi(block: bytes | None) -> tuple[float, float] | None:
    """The resolution that an EXIF block states, in pixels per inch, or None."""
    try:
        return resolution(parse_exif(block))
    except Exception:  # damaged metadata does not stop a restoration
        return None
