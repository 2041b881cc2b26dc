"""A picture in memory, and how decoded samples become one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restorert.errors import PictureError
from restorert.pictures.metadata import reset_exif, sensible_dpi


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture in memory.

    Attributes:
        pixels: [H, W, C], uint8 or uint16 over the dtype's full range; C is 1 (grey) or 3 (RGB).
        alpha: [H, W] like ``pixels``, 0 transparent, not multiplied into them; or None.
        icc_profile: the colour profile of ``pixels``; None means sRGB.
        exif: an EXIF block (from its byte-order mark on), whose orientation is 1.
        dpi: horizontal and vertical resolution in pixels per inch, or None.

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
        array = pixels.ndim == 3 and pixels.size > 0 and pixels.dtype in (np.uint8, np.uint16)
        if not array or pixels.shape[2] not in (1, 3):
            raise PictureError(
                "a picture is [H, W, 1 or 3] of uint8 or uint16, "
                f"not {list(pixels.shape)} of {pixels.dtype}"
            )
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise PictureError(
                f"alpha is {list(pixels.shape[:2])} of {pixels.dtype}, "
                f"not {list(alpha.shape)} of {alpha.dtype}"
            )

    @classmethod
    def of_samples(cls, samples: NDArray[Any], **metadata: Any) -> Picture:
        """A picture of samples [H, W] or [H, W, 1 to 4], of which the second or fourth is alpha."""
        if samples.ndim == 2:
            samples = samples[..., None]
        colours = samples.shape[2] - (samples.shape[2] in (2, 4))
        return cls(
            pixels=np.ascontiguousarray(samples[..., :colours]),
            alpha=np.ascontiguousarray(samples[..., -1]) if samples.shape[2] > colours else None,
            **metadata,
        )

    @property
    def samples(self) -> NDArray[Any]:
        """[H, W, 1 to 4]: the colours and, behind them, alpha."""
        if self.alpha is None:
            return self.pixels
        return np.concatenate([self.pixels, self.alpha[..., None]], axis=2)


def upright(
    samples: NDArray[Any], icc_profile: Any, exif: bytes | None, dpi: Any, orientation: int = 1
) -> Picture:
    """A picture of stored samples, turned upright by its EXIF block or else by ``orientation``.

    An invalid profile or resolution is left out.
    """
    if exif is not None:
        stored, exif = reset_exif(exif)
        orientation = stored if orientation == 1 else orientation
    dpi = sensible_dpi(dpi)
    if orientation in (5, 6, 7, 8):
        samples, dpi = samples.swapaxes(0, 1), dpi and dpi[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    icc_profile = icc_profile if isinstance(icc_profile, bytes) and icc_profile else None
    return Picture.of_samples(samples, icc_profile=icc_profile, exif=exif, dpi=dpi)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise PictureError if a file states more than ``max_pixels`` pixels."""
    if width * height > max_pixels:
        raise PictureError(
            f"{width}x{height} is more than the limit of {max_pixels} pixels (a decompression "
            "bomb?); if you trust the file, pass a larger max_pixels"
        )


def samples_of_image(image: Image.Image) -> tuple[NDArray[Any], Any]:
    """8-bit samples [H, W] or [H, W, 2 to 4] of a Pillow image, and their profile or None."""
    mode, profile = image.mode, image.info.get("icc_profile")
    if mode == "CMYK":
        return np.asarray(_srgb_of_cmyk(image, profile) or image.convert("RGB")), None
    grey = mode in ("1", "L", "La", "LA")
    if not grey and mode not in ("P", "PA", "RGB", "RGBa", "RGBA", "RGBX", "YCbCr"):
        raise PictureError(
            f"pixels of type {mode!r}; convert the picture to 8 or 16-bit grey or RGB"
        )
    transparent = "transparency" in image.info and mode in ("1", "L", "P", "RGB")
    if not transparent and mode[-1] not in "aA":
        return np.asarray(image.convert("L" if grey else "RGB")), profile
    samples = np.asarray(image.convert("RGBA"))
    return samples[..., [0, 3]] if grey else samples, profile


def _srgb_of_cmyk(image: Image.Image, profile: Any) -> Image.Image | None:
    """The image in sRGB; None if it has no profile or a damaged one."""
    if not profile:
        return None
    try:
        given, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, given, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
