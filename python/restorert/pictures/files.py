"""Picture files: PNG, JPEG, WebP and TIFF, 8 and 16 bits, with what must survive a restoration.

Pillow reads and writes everything of 8 bits. It holds no 16-bit colour, so those pixels go through
imagecodecs (libpng, libtiff), chosen over OpenCV (no grey with alpha, half a truncated file comes
back without an error) and pypng (pure Python: seconds a megapixel).
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from restorert.errors import PictureError, reason_of
from restorert.files import check_replaceable, replace_atomically
from restorert.pictures import metadata
from restorert.pictures.picture import Picture, check_size, samples_of_image, upright
from restorert.pictures.pixels import to_8_bits
from restorert.pictures.tiff import decode_tiff, encode_tiff

MAX_PIXELS = 2**28
"""Width times height that `read_image` takes unless told otherwise: more than any camera's."""

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Suffix -> format of the files that are read and written."""

_LONGEST_SIDE = {"JPEG": 65500, "WebP": 16383}  # of libjpeg and libwebp, in pixels


def list_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a folder whose suffix is in `FORMATS`, in alphabetical order."""
    files = (path for path in Path(folder).iterdir() if path.suffix.lower() in FORMATS)
    return sorted(path for path in files if not path.is_dir())


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF file, recognised by its content.

    The EXIF (or TIFF) orientation is applied to the pixels and reset, so that networks see upright
    pictures, and the written file looks the same in viewers with and without support for it. The
    EXIF thumbnail, which shows the unrestored picture, is dropped.

    Grey stays grey, with or without alpha; 1, 2 and 4 bits and palettes become 8 bits; CMYK
    becomes sRGB, through its profile where it has one. 16-bit PNG and TIFF stay 16-bit, exactly.
    Files of several pictures (animated PNG and WebP, TIFF of several pages) are refused, as writing
    one of them would lose the others; reduced copies and masks in a TIFF, and the further pictures
    that phones append to a JPEG, are not counted.

    Args:
        path: the file.
        max_pixels: larger pictures are refused before memory is allocated. Pillow's own limit,
            twice ``PIL.Image.MAX_IMAGE_PIXELS``, applies to WebP and 8-bit TIFF as well.

    Raises:
        PictureError: the file is missing, unreadable, not a picture of these formats, damaged,
            truncated, too large, holds several pictures, or has pixels with no 8 or 16-bit form
            (float, 32-bit, CIELAB).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture")
        data = path.read_bytes()
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise PictureError(f"{path}: cannot be read ({reason_of(error)})") from None
    if not data:
        raise PictureError(f"{path} is an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is then left out
            return _decode(data, max_pixels)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from None
    except MemoryError:
        raise PictureError(f"{path}: not enough memory to read this picture") from None
    except Image.DecompressionBombError as error:  # checked inside two of Pillow's plugins
        raise PictureError(
            f"{path}: {reason_of(error)}; if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # decoders raise anything on hostile files
        raise PictureError(
            f"{path}: damaged, truncated or unusual picture ({reason_of(error)}); get the file "
            "again or save it with another program"
        ) from None


def write_image(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> None:
    """Write a picture in the format of the suffix: .png, .jpg, .jpeg, .webp, .tif or .tiff.

    PNG and TIFF (deflate) keep the bit depth and are lossless. WebP is written lossless in 8 bits,
    grey as RGB. JPEG has 8 bits and full chroma resolution (4:4:4). 16 bits become 8 by rounding to
    nearest. Profile, EXIF and resolution are written in all four formats. The file is written
    beside ``path`` and renamed: ``path`` holds the old content or all of the new.

    Args:
        path: the file; an existing one is replaced.
        picture: what to write.
        quality: of JPEG, 1 to 100.

    Raises:
        PictureError: another suffix; a folder that is missing or cannot be written to; transparency
            in JPEG; a picture larger than the format allows.
    """
    path = Path(path)
    target = check_target(path, picture)
    try:
        if target == "TIFF":
            data = encode_tiff(picture)
        elif target == "PNG" and picture.pixels.dtype == np.uint16:
            data = _encode_png16(picture)
        else:
            data = _encode_with_pillow(picture, target, quality)
    except MemoryError:
        raise PictureError(f"{path}: not enough memory to write this picture") from None
    except Exception as error:  # encoders raise anything past their formats' limits
        raise _too_much(path, target, picture, reason_of(error)) from None
    try:
        with replace_atomically(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({reason_of(error)})") from None


def check_target(path: str | os.PathLike[str], picture: Picture) -> str:
    """The format `write_image` would write to ``path``: "PNG", "JPEG", "WebP" or "TIFF".

    To be called before the pixels are computed: ``picture`` may hold others of the same size.

    Raises:
        PictureError: what `write_image` would raise, as far as can be told beforehand.
    """
    path = Path(path)
    with contextlib.suppress(OSError):  # a name that is too long is told below
        if path.is_dir():
            raise PictureError(f"{path} is a folder; name the picture to write in it")
    target = FORMATS.get(path.suffix.lower())
    if target is None:
        found = f"unknown suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise PictureError(f"{path}: {found}; pictures are written as {', '.join(FORMATS)}")
    alpha = picture.alpha
    if target == "JPEG" and alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        raise PictureError(
            f"{path}: JPEG holds no transparency; write .png, .webp or .tif, or flatten the picture"
        )
    longest = _LONGEST_SIDE.get(target)
    if longest is not None and max(picture.pixels.shape) > longest:
        raise _too_much(path, target, picture, f"its sides are {longest} pixels at most")
    try:
        if not path.parent.is_dir():
            raise PictureError(f"{path}: the folder {path.parent} does not exist; create it first")
        check_replaceable(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise PictureError(f"{path}: cannot be written ({reason_of(error)})") from None
    return target


def _too_much(path: Path, target: str, picture: Picture, reason: str) -> PictureError:
    height, width = picture.pixels.shape[:2]
    return PictureError(
        f"{path}: {target} cannot hold this picture of {width}x{height} ({reason}); write .png or "
        ".tif"
    )


# ---- reading -------------------------------------------------------------------------------------


def _decode(data: bytes, max_pixels: int) -> Picture:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _decode_with_pillow(PngImagePlugin.PngImageFile, data, max_pixels)
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_with_pillow(JpegImagePlugin.JpegImageFile, data, max_pixels)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _decode_with_pillow(WebPImagePlugin.WebPImageFile, data, max_pixels)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return decode_tiff(data, max_pixels)
    raise PictureError(f"not a PNG, JPEG, WebP or TIFF picture (it begins with {data[:8]!r})")


def _decode_with_pillow(plugin: type[ImageFile.ImageFile], data: bytes, max_pixels: int) -> Picture:
    # The plugin and not Image.open: it has no process-wide pixel limit and tries no other format.
    image = plugin(io.BytesIO(data))
    check_size(*image.size, max_pixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PictureError(f"an animation of {frames} frames; save the frame you want on its own")
    image.load()
    if plugin is PngImagePlugin.PngImageFile and data[24] == 16:
        # Only files that Pillow has read to their end come here: imagecodecs 2026.3 drops a
        # reference to None with every PNG that fails, which in the end kills the interpreter.
        samples, profile = imagecodecs.png_decode(data), image.info.get("icc_profile")
    else:
        samples, profile = samples_of_image(image)
    exif = image.info.get("exif")
    exif = exif.removeprefix(metadata.EXIF_HEADER) if isinstance(exif, bytes) else None
    return upright(samples, profile, exif, image.info.get("dpi") or metadata.exif_dpi(exif))


# ---- writing -------------------------------------------------------------------------------------


def _encode_with_pillow(picture: Picture, target: str, quality: int) -> bytes:
    samples = to_8_bits(picture.pixels if target == "JPEG" else picture.samples)
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    exif = picture.exif
    options: dict[str, Any] = {}
    if target == "JPEG":
        options = {"quality": quality, "subsampling": "4:4:4", "optimize": True}
    elif target == "WebP":
        # exact: colours under full transparency stay as they are.
        options = {"lossless": True, "exact": True}
        image = image.convert("RGB" if picture.alpha is None else "RGBA")
        if picture.dpi is not None and metadata.exif_dpi(exif) is None:
            # WebP has no other place for it.
            tags = metadata.parse_exif(exif)
            metadata.set_resolution(tags, picture.dpi)
            exif = tags.tobytes().removeprefix(metadata.EXIF_HEADER)
    options |= {"icc_profile": picture.icc_profile, "dpi": picture.dpi}
    options["exif"] = None if exif is None else metadata.EXIF_HEADER + exif
    file = io.BytesIO()
    image.save(
        file, target, **{name: value for name, value in options.items() if value is not None}
    )
    return file.getvalue()


def _encode_png16(picture: Picture) -> bytes:
    """A PNG by libpng, with the chunks of the metadata (PNG specification, 11.3) put in."""
    samples = picture.samples
    # Axes of length 1 may have any strides in numpy, but not in imagecodecs.
    data = bytes(imagecodecs.png_encode(samples.ravel().reshape(samples.shape)))
    chunks = {}
    if picture.icc_profile is not None:
        chunks[b"iCCP"] = b"ICC profile\0\0" + zlib.compress(picture.icc_profile)
    if picture.dpi is not None:
        x, y = (round(value / 0.0254) for value in picture.dpi)
        chunks[b"pHYs"] = struct.pack(">LLB", x, y, 1)
    if picture.exif is not None:
        chunks[b"eXIf"] = picture.exif
    parts = [data[:33]]  # signature and IHDR, which comes first and has 13 bytes of content
    for kind, content in chunks.items():
        body, length = kind + content, struct.pack(">L", len(content))
        parts += [length, body, struct.pack(">L", zlib.crc32(body))]
    return b"".join([*parts, data[33:]])
