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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import (
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    TiffTags,
    WebPImagePlugin,
)

from restorert.errors import PictureError
from restorert.files import check_replaceable, replace_atomically

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

_LONGEST_SIDE = {"JPEG": 65500, "WebP": 16383}  # of libjpeg and libwebp, in pixels

_ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
# IFD 0 tags that describe the picture; the others describe how the file stores it.
_DESCRIPTIVE_TAGS = (
    0x010E,  # ImageDescription
    0x010F,  # Make
    0x0110,  # Model
    0x0131,  # Software
    0x0132,  # DateTime
    0x013B,  # Artist
    0x013C,  # HostComputer
    0x8298,  # Copyright
)
_DPI_RANGE = (1.0, 65535.0)  # what a JPEG header can hold; nothing else is a real resolution


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture in memory.

    Attributes:
        pixels: [H, W, C], uint8 or uint16 over the dtype's full range; C is 1 (grey) or 3 (RGB).
        alpha: [H, W] like ``pixels``, 0 transparent, not multiplied into them; or None.
        icc_profile: the colour profile of ``pixels``; None means sRGB.
        exif: an EXIF block (from its byte-order mark on), whose orientation is 1.
        dpi: horizontal and vertical resolution in pixels an inch, or None.

    Raises:
        PictureError: shapes or dtypes other than these.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if (
            pixels.dtype not in (np.uint8, np.uint16)
            or pixels.ndim != 3
            or pixels.shape[2] not in (1, 3)
            or not pixels.size
        ):
            raise PictureError(
                "a picture is [H, W, 1 or 3] of uint8 or uint16, "
                f"not {list(pixels.shape)} of {pixels.dtype}"
            )
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise PictureError(
                f"alpha is {list(pixels.shape[:2])} of {pixels.dtype}, "
                f"not {list(alpha.shape)} of {alpha.dtype}"
            )


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF file, recognised by its content.

    The EXIF (or TIFF) orientation is applied to the pixels and reset, so that networks see upright
    pictures and what is written looks the same in viewers that know orientation and in those that
    do not. The EXIF thumbnail, which shows the unrestored picture, is dropped.

    Grey stays grey, with or without alpha; 1, 2 and 4 bits and palettes become 8 bits; CMYK
    becomes sRGB, through its profile where it has one. 16-bit PNG and TIFF stay 16-bit, exactly.
    Files of several pictures (animated PNG and WebP, TIFF of several pages) are refused, as writing
    one of them would lose the others; reduced copies and masks in a TIFF, and the further pictures
    that phones append to a JPEG, are not counted.

    Args:
        path: the file.
        max_pixels: larger pictures are refused before any memory is taken. Pillow's own limit,
            twice ``PIL.Image.MAX_IMAGE_PIXELS``, holds for WebP and 8-bit TIFF besides.

    Raises:
        PictureError: missing, unreadable, no such picture, damaged, truncated, too large, of
            several pictures, or of a pixel type (float, 32-bit, CIELAB) with no 8 or 16-bit form.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture")
        data = path.read_bytes()
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or _one_line(error)
        raise PictureError(f"{path}: cannot be read ({reason})") from None
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
            f"{path}: {_one_line(error)}; if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # decoders raise anything on hostile files
        raise PictureError(
            f"{path}: damaged, truncated or unusual picture ({_one_line(error)}); get the file "
            "again or save it with another program"
        ) from None


def write_image(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> None:
    """Write a picture in the format of the suffix: .png, .jpg, .jpeg, .webp, .tif or .tiff.

    PNG and TIFF (deflate) keep the bit depth and are lossless. WebP is written lossless in 8 bits,
    grey as RGB. JPEG has 8 bits and full chroma resolution (4:4:4). 16 bits become 8 by rounding to
    nearest. Profile, EXIF and resolution are written in all four formats. The file is written
    beside ``path`` and renamed, so that ``path`` has the old content or all of the new.

    Args:
        path: the file; an existing one is replaced.
        picture: what to write.
        quality: of JPEG, 1 to 100.

    Raises:
        PictureError: another suffix; the folder is missing or cannot be written to; transparency
            that JPEG cannot hold; a picture larger than the format allows.
    """
    path = Path(path)
    target = check_target(path, picture)
    try:
        if target == "TIFF":
            data = _encode_tiff(picture)
        elif target == "PNG" and picture.pixels.dtype == np.uint16:
            data = _encode_png16(picture)
        else:
            data = _encode_with_pillow(picture, target, quality)
    except MemoryError:
        raise PictureError(f"{path}: not enough memory to write this picture") from None
    except Exception as error:  # encoders raise anything past their formats' limits
        raise _too_much(path, target, picture, _one_line(error)) from None
    try:
        with replace_atomically(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written ({error.strerror or error})") from None


def check_target(path: str | os.PathLike[str], picture: Picture) -> str:
    """The format `write_image` would write to ``path``: "PNG", "JPEG", "WebP" or "TIFF".

    For before the work that makes the pixels: ``picture`` may hold others; nothing is left behind.

    Raises:
        PictureError: what `write_image` would raise, as far as it is known before.
    """
    path = Path(path)
    with contextlib.suppress(OSError):  # a name that is too long is told below
        if path.is_dir():
            raise PictureError(f"{path} is a folder; name the picture to write in it")
    target = FORMATS.get(path.suffix.lower())
    if target is None:
        suffix = f"the suffix {path.suffix!r} is none" if path.suffix else "it lacks one of those"
        raise PictureError(f"{path}: {suffix} that pictures are written as: {', '.join(FORMATS)}")
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
        reason = getattr(error, "strerror", None) or _one_line(error)
        raise PictureError(f"{path}: cannot be written ({reason})") from None
    return target


def _too_much(path: Path, target: str, picture: Picture, reason: str) -> PictureError:
    height, width = picture.pixels.shape[:2]
    return PictureError(
        f"{path}: {target} cannot hold this picture of {width}x{height} ({reason}); write .png or "
        ".tif"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


# ---- reading -------------------------------------------------------------------------------------


def _decode(data: bytes, max_pixels: int) -> Picture:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _decode_with_pillow(PngImagePlugin.PngImageFile, data, max_pixels)
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_with_pillow(JpegImagePlugin.JpegImageFile, data, max_pixels)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _decode_with_pillow(WebPImagePlugin.WebPImageFile, data, max_pixels)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(data, max_pixels)
    raise PictureError(f"not a PNG, JPEG, WebP or TIFF picture (it begins with {data[:8]!r})")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels (a decompression "
            "bomb?); if you trust the file, pass a larger max_pixels"
        )


def _decode_with_pillow(plugin: type[ImageFile.ImageFile], data: bytes, max_pixels: int) -> Picture:
    # The plugin and not Image.open: it has no process-wide pixel limit and tries no other format.
    image = plugin(io.BytesIO(data))
    _check_size(*image.size, max_pixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PictureError(f"an animation of {frames} frames; save the frame you want on its own")
    image.load()
    info = image.info
    exif = info.get("exif")
    exif = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else None
    dpi = info.get("dpi") or _exif_dpi(exif)
    pixels: NDArray[Any]
    if plugin is PngImagePlugin.PngImageFile and data[24] == 16:
        # Only files that Pillow has read to their end come here: imagecodecs 2026.3 drops a
        # reference to None with every PNG that fails, which in the end kills the interpreter.
        pixels, converted = imagecodecs.png_decode(data), False
    else:
        pixels, converted = _to_grey_or_rgb(image)
    profile = None if converted else info.get("icc_profile")
    return _upright(pixels, profile, exif, dpi)


def _to_grey_or_rgb(image: Image.Image) -> tuple[NDArray[Any], bool]:
    """8-bit samples [H, W] or [H, W, 2 to 4], and whether their colours left the file's profile."""
    mode = image.mode
    transparent = "transparency" in image.info
    if mode in ("1", "L") and not transparent:
        return np.asarray(image.convert("L")), False
    if mode in ("LA", "La", "1", "L"):
        return np.asarray(image.convert("RGBA"))[..., [0, 3]], False
    if mode in ("RGBA", "RGBa", "PA") or (mode in ("P", "RGB") and transparent):
        return np.asarray(image.convert("RGBA")), False
    if mode in ("RGB", "RGBX", "P", "YCbCr"):
        return np.asarray(image.convert("RGB")), False
    if mode == "CMYK":
        profile = image.info.get("icc_profile")
        if profile:
            try:
                rgb = ImageCms.profileToProfile(
                    image,
                    ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                    ImageCms.createProfile("sRGB"),
                    outputMode="RGB",
                )
                assert rgb is not None  # only in-place conversions return None
                return np.asarray(rgb), True
            except (ImageCms.PyCMSError, OSError):
                pass  # a damaged profile: the plain conversion below
        return np.asarray(image.convert("RGB")), True
    raise PictureError(f"pixels of type {mode!r}; convert the picture to 8 or 16-bit grey or RGB")


def _decode_tiff(data: bytes, max_pixels: int) -> Picture:
    file = io.BytesIO(data)
    first = _tiff_directory(file, data, None)
    _check_size(first.get(256, 0), first.get(257, 0), max_pixels)
    pages, page, seen = 1, first, set()
    while page.next and page.next not in seen:
        seen.add(page.next)
        page = _tiff_directory(file, data, page.next)
        pages += not page.get(254, 0) & 0b101  # bit 0: a reduced copy; bit 2: a mask
    if pages > 1:
        raise PictureError(f"a TIFF of {pages} pages; save the page you want on its own")

    icc_profile = first.get(34675)
    exif = _exif_of_tiff(first, file, data)
    dpi = _resolution(first.get(282), first.get(283), first.get(296, 2))
    depths = set(first.get(258, (1,)))
    if depths == {16}:
        return _upright(
            _decode_tiff16(data, first), icc_profile, exif, dpi, first.get(_ORIENTATION, 1)
        )
    if max(depths) > 8:
        raise PictureError(f"{max(depths)}-bit pixels; convert the picture to 8 or 16 bits")
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    image.load()  # which turns the pixels upright by itself and forgets the orientation
    pixels, converted = _to_grey_or_rgb(image)
    orientation = image.getexif().get(_ORIENTATION, 1)
    if dpi is not None and orientation == 1 and first.get(_ORIENTATION, 1) in (5, 6, 7, 8):
        dpi = dpi[::-1]
    return _upright(pixels, None if converted else icc_profile, exif, dpi, orientation)


def _tiff_directory(
    file: io.BytesIO, data: bytes, offset: int | None
) -> TiffImagePlugin.ImageFileDirectory_v2:
    """One directory of a TIFF, the first where ``offset`` is None."""
    header = data[:16] if 43 in data[2:4] else data[:8]
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(directory.next if offset is None else offset)
    directory.next = 0  # stays so where the directory is cut off
    directory.load(file)
    if offset is None and 256 not in directory:
        raise PictureError("damaged or truncated TIFF (its directory cannot be read)")
    return directory


def _decode_tiff16(data: bytes, tags: TiffImagePlugin.ImageFileDirectory_v2) -> NDArray[Any]:
    """16-bit samples [H, W] or [H, W, 2 to 4], alpha not multiplied into the colours."""
    photometric, samples = tags.get(262), tags.get(277, 1)
    colours = {0: 1, 1: 1, 2: 3}.get(photometric or 0)
    extra = tags.get(338, ())
    if (
        colours is None
        or samples - colours not in (0, 1)
        or set(tags.get(339, (1,))) != {1}  # sample format: unsigned integers
    ):
        raise PictureError(
            f"a 16-bit TIFF of {samples} samples, photometric interpretation {photometric}, sample "
            f"format {tags.get(339, (1,))[0]}; convert it to 16-bit unsigned grey or RGB"
        )
    pixels: NDArray[Any] = imagecodecs.tiff_decode(data)
    if tags.get(284, 1) == 2 and pixels.ndim == 3:  # planes apart
        pixels = np.moveaxis(pixels, 0, -1)
    height, width = tags[257], tags[256]
    pixels = pixels.reshape(height, width, samples)
    if photometric == 0:  # white is zero
        pixels = np.concatenate([65535 - pixels[..., :1], pixels[..., 1:]], axis=2)
    if samples > colours and extra[:1] == (0,):  # an extra sample that is no alpha
        pixels = pixels[..., :colours]
    elif samples > colours and extra[:1] == (1,):  # premultiplied
        alpha = pixels[..., -1:].astype(np.float64)
        colour = pixels[..., :colours] * (65535.0 / np.maximum(alpha, 1.0))
        pixels = np.concatenate(
            [np.rint(np.minimum(colour, 65535.0)).astype(np.uint16), pixels[..., -1:]], axis=2
        )
    return pixels


def _exif_of_tiff(
    first: TiffImagePlugin.ImageFileDirectory_v2, file: io.BytesIO, data: bytes
) -> bytes | None:
    """The descriptive tags and the EXIF and GPS directories of a TIFF as an EXIF block."""
    exif = Image.Exif()
    try:
        for tag in _DESCRIPTIVE_TAGS:
            if tag in first:
                exif[tag] = first[tag]
        for tag in (_EXIF_IFD, _GPS_IFD):
            if isinstance(offset := first.get(tag), int):
                exif[tag] = {
                    key: value
                    for key, value in _tiff_directory(file, data, offset).items()
                    if key != 0xA005  # interoperability: an offset into the old file
                }
        return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else None
    except Exception:  # damaged metadata does not stop a restoration
        return None


def _resolution(x: Any, y: Any, unit: Any) -> tuple[float, float] | None:
    """Resolution tags in pixels an inch; None where they are absent, senseless or without unit."""
    try:
        scale = {2: 1.0, 3: 2.54}[unit]
        dpi = float(x) * scale, float(y) * scale
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return _sensible_dpi(dpi)


def _sensible_dpi(dpi: Any) -> tuple[float, float] | None:
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    low, high = _DPI_RANGE
    x, y = (float(value) for value in dpi)
    return (x, y) if low <= x <= high and low <= y <= high else None


def _exif_dpi(exif: bytes | None) -> tuple[float, float] | None:
    if exif is None:
        return None
    try:
        tags = Image.Exif()
        tags.load(b"Exif\0\0" + exif)
        return _resolution(tags.get(282), tags.get(283), tags.get(296, 2))
    except Exception:  # damaged metadata does not stop a restoration
        return None


def _reset_exif(exif: bytes) -> tuple[int, bytes | None]:
    """The orientation of an EXIF block, and the block with orientation 1 and without thumbnail.

    Changed in place: makers' notes hold offsets that re-serialising the block would break.
    """
    block = bytearray(exif)
    orientation = 1
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        (offset,) = struct.unpack_from(order + "4xL", block)
        (count,) = struct.unpack_from(order + "H", block, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", block, entry)
            if tag == _ORIENTATION and kind == 3:
                orientation = value
                struct.pack_into(order + "H", block, entry + 8, 1)
        struct.pack_into(order + "L", block, offset + 2 + 12 * count, 0)
    except (KeyError, struct.error):
        return 1, None  # no EXIF that a reader could follow
    return orientation, bytes(block)


def _upright(
    samples: NDArray[Any],
    icc_profile: Any,
    exif: bytes | None,
    dpi: Any,
    orientation: int = 1,
) -> Picture:
    """A picture of samples [H, W] or [H, W, 1 to 4], turned as the orientation says."""
    if exif is not None:
        stored, exif = _reset_exif(exif)
        orientation = stored if orientation == 1 else orientation
    if samples.ndim == 2:
        samples = samples[..., None]
    turns = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    if orientation in turns:
        samples = turns[orientation](samples)
    dpi = _sensible_dpi(dpi)
    if dpi is not None and orientation in (5, 6, 7, 8):
        dpi = dpi[::-1]
    colours = samples.shape[2] - (samples.shape[2] in (2, 4))
    return Picture(
        pixels=np.ascontiguousarray(samples[..., :colours]),
        alpha=np.ascontiguousarray(samples[..., -1]) if samples.shape[2] > colours else None,
        icc_profile=icc_profile if isinstance(icc_profile, bytes) and icc_profile else None,
        exif=exif,
        dpi=dpi,
    )


# ---- writing -------------------------------------------------------------------------------------


def _samples(picture: Picture) -> NDArray[Any]:
    """[H, W, 1 to 4]: the colours and, behind them, alpha."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)


def _encode_with_pillow(picture: Picture, target: str, quality: int) -> bytes:
    samples = picture.pixels if target == "JPEG" else _samples(picture)
    if samples.dtype == np.uint16:
        # 65535 / 255 = 257 is odd, so no value lies half-way between two.
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[samples.shape[2]]
    image = Image.fromarray(samples[..., 0] if mode == "L" else samples)
    assert image.mode == mode
    exif = picture.exif
    options: dict[str, Any] = {}
    if target == "JPEG":
        options = {"quality": quality, "subsampling": "4:4:4", "optimize": True}
    elif target == "WebP":
        # exact: colours under full transparency stay as they are.
        options = {"lossless": True, "exact": True}
        image = image.convert("RGB" if mode in ("L", "RGB") else "RGBA")
        if picture.dpi is not None and _exif_dpi(exif) is None:  # WebP has no other place for it
            tags = Image.Exif()
            if exif is not None:
                tags.load(b"Exif\0\0" + exif)
            tags[282], tags[283], tags[296] = (*picture.dpi, 2)
            exif = tags.tobytes().removeprefix(b"Exif\0\0")
    if exif is not None:
        options["exif"] = b"Exif\0\0" + exif
    if picture.icc_profile is not None:
        options["icc_profile"] = picture.icc_profile
    if picture.dpi is not None:
        options["dpi"] = picture.dpi
    file = io.BytesIO()
    image.save(file, target, **options)
    return file.getvalue()


def _encode_png16(picture: Picture) -> bytes:
    """A PNG by libpng, with the chunks of the metadata (PNG specification, 11.3) put in."""
    samples = _samples(picture)
    # Axes of length 1 may have any strides in numpy, but not in imagecodecs.
    data = bytes(imagecodecs.png_encode(samples.ravel().reshape(samples.shape)))
    chunks = []
    if picture.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc_profile)))
    if picture.dpi is not None:
        x, y = (round(value / 0.0254) for value in picture.dpi)
        chunks.append((b"pHYs", struct.pack(">LLB", x, y, 1)))
    if picture.exif is not None:
        chunks.append((b"eXIf", picture.exif))
    header = 33  # signature and IHDR, which comes first and has 13 bytes of content
    metadata = b"".join(
        struct.pack(">L", len(content))
        + kind
        + content
        + struct.pack(">L", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return data[:header] + metadata + data[header:]


def _encode_tiff(picture: Picture) -> bytes:
    """A baseline TIFF in strips: deflate with the horizontal predictor (TIFF 6.0, section 14)."""
    samples = _samples(picture)
    height, width, count = samples.shape
    colours = picture.pixels.shape[2]
    rows = max(1, 2**18 // (width * count * samples.itemsize))
    strips = []
    for top in range(0, height, rows):
        block = samples[top : top + rows].astype(samples.dtype.newbyteorder("<"))
        block[:, 1:] -= block[:, :-1].copy()  # modulo the dtype, as the predictor is defined
        strips.append(zlib.compress(block.tobytes()))

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257] = width, height
    tags[258] = (samples.itemsize * 8,) * count
    tags[259] = 8  # compression: deflate
    tags[262] = 2 if colours == 3 else 1  # photometric interpretation: RGB, black is zero
    tags[_ORIENTATION] = 1
    tags[277] = count
    tags[278] = rows
    tags[284] = 1  # samples of a pixel together
    tags[317] = 2  # horizontal predictor
    tags[339] = (1,) * count  # unsigned integers
    if picture.alpha is not None:
        tags[338] = 2  # the extra sample is alpha, not multiplied into the colours
    if picture.dpi is not None:
        tags[282], tags[283], tags[296] = (*picture.dpi, 2)
    if picture.icc_profile is not None:
        tags.tagtype[34675] = TiffTags.UNDEFINED
        tags[34675] = picture.icc_profile
    if picture.exif is not None:
        _add_exif(tags, picture.exif)
    tags[279] = tuple(len(strip) for strip in strips)
    # Relative to the end of the directory; Pillow adds the directory's own place and length.
    offsets, position = [], 0
    for strip in strips:
        offsets.append(position)
        position += len(strip)
    tags[273] = tuple(offsets)
    file = io.BytesIO()
    tags.save(file)
    file.write(b"".join(strips))
    return file.getvalue()


def _add_exif(tags: TiffImagePlugin.ImageFileDirectory_v2, block: bytes) -> None:
    """The descriptive part of an EXIF block as TIFF tags; what cannot be serialised is left out."""
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + block)
        found: dict[int, Any] = {tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif}
        for tag in (_EXIF_IFD, _GPS_IFD):
            directory = {
                key: value
                for key, value in exif.get_ifd(tag).items()
                if key not in (0xA005, 0x927C)  # offsets into the old block
            }
            if directory:
                found[tag] = directory
    except Exception:  # damaged metadata does not stop a restoration
        return
    for tag, value in found.items():
        try:
            alone = TiffImagePlugin.ImageFileDirectory_v2()
            alone[tag] = value
            alone.tobytes()
        except Exception:  # a value of another type than its tag's
            continue
        tags[tag] = value
