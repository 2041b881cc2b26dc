"""TIFF: directories, 16-bit samples, and the encoder (TIFF 6.0)."""

from __future__ import annotations

import io
import zlib
from itertools import accumulate
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from restorert.errors import PictureError
from restorert.pictures import metadata
from restorert.pictures.picture import Picture, check_size, samples_of_image, upright


def decode_tiff(data: bytes, max_pixels: int) -> Picture:
    """The picture of a TIFF file; see `read_image`. On a damaged file it may raise anything."""
    file = io.BytesIO(data)
    first = _directory(file, data, None)
    check_size(first.get(Base.ImageWidth, 0), first.get(Base.ImageLength, 0), max_pixels)
    pages, page, seen = 1, first, set()
    while page.next and page.next not in seen:
        seen.add(page.next)
        page = _directory(file, data, page.next)
        # Bit 0: a reduced copy; bit 2: a mask.
        pages += not page.get(Base.NewSubfileType, 0) & 0b101
    if pages > 1:
        raise PictureError(f"a TIFF of {pages} pages; save the page you want on its own")

    exif = _exif(first, file, data)
    dpi = metadata.resolution(first)
    stored = first.get(Base.Orientation, 1)
    depths = set(first.get(Base.BitsPerSample, (1,)))
    if depths == {16}:
        return upright(_decode16(data, first), first.get(Base.InterColorProfile), exif, dpi, stored)
    if max(depths) > 8:
        raise PictureError(f"{max(depths)}-bit pixels; convert the picture to 8 or 16 bits")
    image = TiffImageFile(io.BytesIO(data))
    image.load()  # which turns the pixels upright by itself and forgets the orientation
    samples, profile = samples_of_image(image)
    orientation = image.getexif().get(Base.Orientation, 1)
    if dpi is not None and orientation == 1 and stored in (5, 6, 7, 8):
        dpi = dpi[::-1]
    return upright(samples, profile, exif, dpi, orientation)


def _directory(file: io.BytesIO, data: bytes, offset: int | None) -> ImageFileDirectory_v2:
    """One directory of a TIFF, the first where ``offset`` is None."""
    header = data[:16] if 43 in data[2:4] else data[:8]  # 43: BigTIFF
    directory = ImageFileDirectory_v2(header)
    file.seek(directory.next if offset is None else offset)
    directory.next = 0  # stays so where the directory is cut off
    directory.load(file)
    if offset is None and Base.ImageWidth not in directory:
        raise PictureError("damaged or truncated TIFF (its directory cannot be read)")
    return directory


def _decode16(data: bytes, tags: ImageFileDirectory_v2) -> NDArray[Any]:
    """16-bit samples [H, W, 1 to 4], alpha not multiplied into the colours."""
    photometric = tags.get(Base.PhotometricInterpretation)
    samples = tags.get(Base.SamplesPerPixel, 1)
    # White is zero, black is zero, RGB.
    colours = {0: 1, 1: 1, 2: 3}.get(photometric or 0)
    extra = tags.get(Base.ExtraSamples, ())
    formats = tags.get(Base.SampleFormat, (1,))  # 1: unsigned integers
    if colours is None or samples - colours not in (0, 1) or set(formats) != {1}:
        raise PictureError(
            f"a 16-bit TIFF of {samples} samples, photometric interpretation {photometric}, sample "
            f"format {formats[0]}; convert it to 16-bit unsigned grey or RGB"
        )
    pixels: NDArray[Any] = imagecodecs.tiff_decode(data)
    if tags.get(Base.PlanarConfiguration, 1) == 2 and pixels.ndim == 3:  # planes apart
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.reshape(tags[Base.ImageLength], tags[Base.ImageWidth], samples)
    if photometric == 0:
        pixels = np.concatenate([65535 - pixels[..., :1], pixels[..., 1:]], axis=2)
    if samples > colours and extra[:1] == (0,):  # an extra sample that is no alpha
        pixels = pixels[..., :colours]
    elif samples > colours and extra[:1] == (1,):  # premultiplied
        alpha = pixels[..., -1:]
        colour = pixels[..., :colours] * (65535.0 / np.maximum(alpha.astype(np.float64), 1.0))
        colour = np.rint(np.minimum(colour, 65535.0)).astype(np.uint16)
        pixels = np.concatenate([colour, alpha], axis=2)
    return pixels


def _exif(first: ImageFileDirectory_v2, file: io.BytesIO, data: bytes) -> bytes | None:
    """The descriptive tags and the EXIF and GPS directories of a TIFF as an EXIF block."""
    exif = Image.Exif()
    try:
        for tag in metadata.DESCRIPTIVE_TAGS:
            if tag in first:
                exif[tag] = first[tag]
        for nested in metadata.NESTED:
            if isinstance(offset := first.get(nested), int):
                exif[nested] = {
                    key: value
                    for key, value in _directory(file, data, offset).items()
                    if key != IFD.Interop  # an offset into the old file
                }
        return exif.tobytes().removeprefix(metadata.EXIF_HEADER) if len(exif) else None
    except Exception:  # damaged metadata does not stop a restoration
        return None


def encode_tiff(picture: Picture) -> bytes:
    """A baseline TIFF in strips: deflate with the horizontal predictor (TIFF 6.0, section 14)."""
    samples = picture.samples
    height, width, count = samples.shape
    rows = max(1, 2**18 // (width * count * samples.itemsize))
    strips = []
    for top in range(0, height, rows):
        block = samples[top : top + rows].astype(samples.dtype.newbyteorder("<"))
        block[:, 1:] -= block[:, :-1].copy()  # modulo the dtype, as the predictor is defined
        strips.append(zlib.compress(block.tobytes()))

    tags = ImageFileDirectory_v2()
    tags[Base.ImageWidth], tags[Base.ImageLength] = width, height
    tags[Base.BitsPerSample] = (samples.itemsize * 8,) * count
    tags[Base.Compression] = 8  # deflate
    tags[Base.PhotometricInterpretation] = 2 if count > 2 else 1  # RGB, black is zero
    tags[Base.Orientation] = 1
    tags[Base.SamplesPerPixel] = count
    tags[Base.RowsPerStrip] = rows
    tags[Base.PlanarConfiguration] = 1  # samples of a pixel together
    tags[Base.Predictor] = 2  # horizontal
    tags[Base.SampleFormat] = (1,) * count  # unsigned integers
    if picture.alpha is not None:
        tags[Base.ExtraSamples] = 2  # alpha, not multiplied into the colours
    if picture.dpi is not None:
        metadata.set_resolution(tags, picture.dpi)
    if picture.icc_profile is not None:
        tags.tagtype[Base.InterColorProfile] = TiffTags.UNDEFINED
        tags[Base.InterColorProfile] = picture.icc_profile
    for tag, value in metadata.descriptive_tags(picture.exif).items():
        try:
            alone = ImageFileDirectory_v2()
            alone[tag] = value
            alone.tobytes()
        except Exception:  # a value of another type than its tag's
            continue
        tags[tag] = value
    lengths = tuple(map(len, strips))
    tags[Base.StripByteCounts] = lengths
    # Relative to the end of the directory; Pillow adds the directory's own place and length.
    tags[Base.StripOffsets] = tuple(accumulate(lengths[:-1], initial=0))
    file = io.BytesIO()
    tags.save(file)
    file.write(b"".join(strips))
    return file.getvalue()
