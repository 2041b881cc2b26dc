"""Picture files: every mode, format, depth and orientation, and files that are hostile."""

from __future__ import annotations

import io
import itertools
import os
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps
from skimage import data

from restorert.errors import PictureError
from restorert.pictures.files import read_image, write_image
from restorert.pictures.picture import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SETTINGS = settings(max_examples=120)
ORIENTATION = 0x0112
KINDS = ["L", "LA", "RGB", "RGBA"]


def samples(kind: str, dtype: type = np.uint8, height: int = 40, width: int = 52) -> np.ndarray:
    """[H, W, C] of a photograph; every low byte of 16 bits differs from its high byte."""
    rgb = data.astronaut()[60 : 60 + height, 180 : 180 + width]
    alpha = data.coffee()[:height, :width, :1]
    parts = {"L": [rgb[..., :1]], "RGB": [rgb]}[kind.removesuffix("A")]
    result = np.concatenate([*parts, alpha] if kind.endswith("A") else parts, axis=2)
    if dtype == np.uint16:
        return result.astype(np.uint16) * 251 + np.arange(width, dtype=np.uint16)[:, None]
    return result


def picture_of(array: np.ndarray, **metadata: object) -> Picture:
    if array.shape[2] in (2, 4):
        return Picture(array[..., :-1].copy(), array[..., -1].copy(), **metadata)
    return Picture(array, **metadata)


def samples_of(picture: Picture) -> np.ndarray:
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=2)


def exif_block(orientation: int | None = None, note: bytes | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    exif[0x013B] = "Photographer"
    if orientation is not None:
        exif[ORIENTATION] = orientation
    exif.get_ifd(0x8769)[0x829D] = 2.8  # FNumber
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    if note is not None:
        exif.get_ifd(0x8769)[0x927C] = note
    # Pillow writes the nested directories to TIFF only of a block that it has read.
    (result := Image.Exif()).load(exif.tobytes())
    return result


def refusal(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# ---- lossless formats: exact in both directions --------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp"])
def test_8_bits_against_pillow(tmp_path: Path, suffix: str, kind: str) -> None:
    array = samples(kind)
    image = Image.fromarray(array.squeeze(), kind)
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    image.save(tmp_path / f"pillow{suffix}", **options)
    # WebP has no grey: Pillow and we store it as RGB.
    expected = np.asarray(
        image if suffix != ".webp" else image.convert("RGB" + kind[len(kind.rstrip("A")) :])
    )
    expected = expected.reshape(*array.shape[:2], -1)
    np.testing.assert_array_equal(samples_of(read_image(tmp_path / f"pillow{suffix}")), expected)

    write_image(ours := tmp_path / f"ours{suffix}", picture_of(array))
    with Image.open(ours) as found:
        np.testing.assert_array_equal(np.asarray(found).reshape(expected.shape), expected)
    np.testing.assert_array_equal(samples_of(read_image(ours)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_against_other_libraries(tmp_path: Path, suffix: str, kind: str) -> None:
    array = samples(kind, np.uint16)
    theirs, ours = tmp_path / f"theirs{suffix}", tmp_path / f"ours{suffix}"
    if suffix == ".png":
        theirs.write_bytes(plain_png16(array))
    else:
        write_tifffile(theirs, array)
    found = read_image(theirs)
    assert found.pixels.dtype == np.uint16
    np.testing.assert_array_equal(samples_of(found), array)

    write_image(ours, picture_of(array))
    read = imagecodecs.png_decode(ours.read_bytes()) if suffix == ".png" else tifffile.imread(ours)
    np.testing.assert_array_equal(read.reshape(array.shape), array)
    np.testing.assert_array_equal(samples_of(read_image(ours)), array)


def plain_png16(array: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG without filters, straight from the specification."""
    height, width, count = array.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">LLBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_tifffile(path: Path, array: np.ndarray, **options: object) -> None:
    count = array.shape[2]
    planarconfig = options.pop("planarconfig", "contig") if count > 1 else None
    options.pop("planarconfig", None)
    planes = planarconfig == "separate"
    tifffile.imwrite(
        path,
        np.moveaxis(array, -1, 0) if planes else array.squeeze(),
        photometric=options.pop("photometric", "rgb" if count > 2 else "minisblack"),
        planarconfig=planarconfig,
        extrasamples=[options.pop("alpha", "unassalpha")] if count in (2, 4) else None,
        metadata=None,
        **options,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"compression": "lzw", "predictor": True},
        {"compression": "zlib", "byteorder": ">", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zstd"},
        {"compression": "lzw", "tile": (16, 16)},
        {"rowsperstrip": 7},
        {"bigtiff": True},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_tiffs_of_every_layout(tmp_path: Path, kind: str, dtype: type, options: dict) -> None:
    if options.get("planarconfig") == "separate" and (kind, dtype) == ("LA", np.uint8):
        pytest.skip("Pillow does not read them")
    if options.get("compression") == "zstd" and dtype == np.uint8 and PIL.__version__ < "12":
        pytest.skip("Pillow's wheels have libtiff with zstd since 12")
    array = samples(kind, dtype)
    write_tifffile(path := tmp_path / "a.tif", array, **options)
    np.testing.assert_array_equal(samples_of(read_image(path)), array)


def test_tiff_white_is_zero_and_premultiplied_alpha(tmp_path: Path) -> None:
    grey = samples("L", np.uint16)
    write_tifffile(path := tmp_path / "a.tif", grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).pixels, 65535 - grey)

    colour = samples("RGBA", np.uint16).astype(np.float64)
    colour[..., 3] = np.maximum(colour[..., 3], 20000)
    stored = colour.copy()
    stored[..., :3] *= colour[..., 3:] / 65535
    write_tifffile(path, np.rint(stored).astype(np.uint16), alpha="assocalpha")
    found = read_image(path)
    assert np.abs(found.pixels - colour[..., :3]).max() <= 0.5 * 65535 / 20000 + 0.5
    np.testing.assert_array_equal(found.alpha, colour[..., 3])


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_16_bit_png_with_a_transparent_colour(tmp_path: Path, kind: str) -> None:
    array = samples(kind, np.uint16)
    transparent = array[3, 5].astype(">u2").tobytes()
    (path := tmp_path / "a.png").write_bytes(plain_png16(array, (b"tRNS", transparent)))
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels, array)
    np.testing.assert_array_equal(found.alpha == 0, (array == array[3, 5]).all(axis=2))


def test_rare_modes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    grey = samples("L")[..., 0]
    Image.fromarray(grey).convert("1").save(path)
    found = read_image(path)
    assert set(np.unique(found.pixels)) == {0, 255}
    assert found.pixels.shape == (40, 52, 1)

    palette = Image.fromarray(samples("RGB")).quantize(16)
    palette.save(path)
    np.testing.assert_array_equal(read_image(path).pixels, np.asarray(palette.convert("RGB")))
    palette.save(path, transparency=3)
    found = read_image(path)
    np.testing.assert_array_equal(found.alpha == 0, np.asarray(palette) == 3)
    palette.save(path := tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(path).pixels, np.asarray(palette.convert("RGB")))

    path = tmp_path / "b.png"
    Image.fromarray(samples("RGB")).save(
        path, transparency=tuple(int(v) for v in samples("RGB")[2, 2])
    )
    assert read_image(path).alpha[2, 2] == 0
    Image.fromarray(grey).save(path, transparency=int(grey[2, 2]))
    found = read_image(path)
    np.testing.assert_array_equal(found.pixels[..., 0], grey)
    np.testing.assert_array_equal(found.alpha == 0, grey == grey[2, 2])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("profile", [None, b"no profile at all"])
def test_cmyk_becomes_srgb(tmp_path: Path, suffix: str, profile: bytes | None) -> None:
    image = Image.fromarray(samples("RGB")).convert("CMYK")
    image.save(path := tmp_path / f"a{suffix}", icc_profile=profile, quality=100)
    found = read_image(path)
    assert found.pixels.shape == (40, 52, 3)
    assert found.icc_profile is None
    difference = np.abs(found.pixels.astype(int) - samples("RGB").astype(int))
    assert difference.mean() < 3  # the JPEG's own loss


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_jpeg_is_what_pillow_decodes(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(samples(kind).squeeze())
    image.save(path := tmp_path / "a.jpg")
    with Image.open(path) as found:
        expected = np.asarray(found).reshape(40, 52, -1)
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    write_image(path, Picture(samples(kind)))
    with Image.open(path) as found:
        assert found.mode == kind
        if kind == "RGB":  # 4:4:4: all three components sampled alike
            assert {layer[1:3] for layer in found.layer} == {(1, 1)}
        difference = np.asarray(found).reshape(40, 52, -1).astype(int) - samples(kind).astype(int)
    assert np.abs(difference).max() < 30
    assert np.sqrt((difference**2).mean()) < 3
    size = path.stat().st_size
    write_image(path, Picture(samples(kind)), quality=50)
    assert path.stat().st_size < size


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_are_rounded_to_8(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write_image(path := tmp_path / f"a{suffix}", Picture(np.repeat(values, 3, axis=2)), quality=100)
    exact = np.rint(values / 65535 * 255)
    with Image.open(path) as found:
        difference = np.abs(np.asarray(found).astype(float) - exact)
    assert difference.max() <= (0 if suffix == ".webp" else 2)


# ---- what must survive ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.product([".png", ".jpg", ".webp", ".tif"], repeat=2))
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_every_pair_of_formats(
    tmp_path: Path, source: str, target: str, orientation: int
) -> None:
    """Viewers that know orientation and others see what the former saw of the source."""
    image = Image.fromarray(data.cat()[:40, :64])
    path, copy = tmp_path / f"a{source}", tmp_path / f"b{target}"
    options = {"lossless": True} if source == ".webp" else {}
    image.save(path, exif=exif_block(orientation), icc_profile=SRGB, dpi=(300, 150), **options)
    with Image.open(path) as found:
        expected = np.asarray(ImageOps.exif_transpose(found).convert("RGB")).astype(int)

    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, expected)
    write_image(copy, picture)
    tolerance = 40 if target == ".jpg" else 0
    with Image.open(copy) as found:
        exif = found.getexif()
        assert exif.get(ORIENTATION, 1) == 1
        assert exif[0x010F] == "Camera maker"
        assert exif[0x013B] == "Photographer"
        assert float(exif.get_ifd(0x8769)[0x829D]) == pytest.approx(2.8)
        assert exif.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
        assert exif.get_ifd(0x8825)[1] == "N"
        assert found.info["icc_profile"] == SRGB
        if source != ".webp":  # Pillow writes no resolution to WebP
            across = (150, 300) if orientation >= 5 else (300, 150)
            stored = found.info.get("dpi") or (exif[282], exif[283])
            assert tuple(map(float, stored)) == pytest.approx(across, rel=1e-3)
        for seen in (found, ImageOps.exif_transpose(found)):
            assert np.abs(np.asarray(seen.convert("RGB")).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", KINDS)
def test_metadata_of_16_bit_files(tmp_path: Path, suffix: str, kind: str) -> None:
    block = exif_block().tobytes().removeprefix(b"Exif\0\0")
    array = samples(kind, np.uint16)
    write_image(
        path := tmp_path / f"a{suffix}",
        picture_of(array, icc_profile=SRGB, exif=block, dpi=(300.0, 150.0)),
    )
    found = read_image(path)
    np.testing.assert_array_equal(samples_of(found), array)
    assert found.icc_profile == SRGB
    assert found.dpi == pytest.approx((300, 150), rel=1e-3)
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + found.exif)
    assert exif[0x010F] == "Camera maker"
    assert float(exif.get_ifd(0x8769)[0x829D]) == pytest.approx(2.8)
    if kind == "LA" and suffix == ".tif":  # which Pillow does not open
        with tifffile.TiffFile(path) as file:
            tags = file.pages[0].tags
            assert tags[34675].value == SRGB
            assert (
                tags[34665].value["FNumber"] == pytest.approx((28, 10), abs=0) or tags[34665].value
            )
    else:
        with Image.open(path) as image:
            assert image.info["icc_profile"] == SRGB
            assert image.getexif()[0x013B] == "Photographer"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_orientation(tmp_path: Path, orientation: int) -> None:
    array = samples("RGB", np.uint16)
    write_tifffile(path := tmp_path / "a.tif", array, extratags=[(ORIENTATION, 3, 1, orientation)])
    # Pillow's own transposition of the high and the low bytes is the oracle.
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    halves = []
    for half in (array >> 8, array & 255):
        image = Image.fromarray(half.astype(np.uint8))
        image.getexif()[ORIENTATION] = orientation
        halves.append(np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16))
    expected = halves[0] << 8 | halves[1]
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    (png := tmp_path / "a.png").write_bytes(plain_png16(array, (b"eXIf", block)))
    np.testing.assert_array_equal(read_image(png).pixels, expected)


def test_makers_notes_stay_in_place_and_thumbnails_go(tmp_path: Path) -> None:
    block = bytearray(exif_block(6, note=b"maker's note" * 9).tobytes())
    # A second directory, the thumbnail's, as cameras write it.
    order = "<" if block[6:8] == b"II" else ">"
    (first,) = struct.unpack_from(order + "L", block, 10)
    (count,) = struct.unpack_from(order + "H", block, 6 + first)
    pointer = 6 + first + 2 + 12 * count
    struct.pack_into(order + "L", block, pointer, len(block) - 6)
    thumbnail = struct.pack(order + "HHHLHxxL", 1, 0x0103, 3, 1, 6, 0)
    Image.new("RGB", (8, 6)).save(path := tmp_path / "a.jpg", exif=bytes(block) + thumbnail)
    with Image.open(path) as source:
        assert source.getexif().get_ifd(ExifTags.IFD.IFD1)

    found = read_image(path)
    expected = bytearray(bytes(block) + thumbnail)
    struct.pack_into(order + "L", expected, pointer, 0)
    for entry in range(6 + first + 2, pointer, 12):
        if struct.unpack_from(order + "H", expected, entry) == (ORIENTATION,):
            struct.pack_into(order + "H", expected, entry + 8, 1)
    assert found.exif == bytes(expected[6:])
    write_image(path, found)
    with Image.open(path) as written:
        assert not written.getexif().get_ifd(ExifTags.IFD.IFD1)
        assert written.getexif().get_ifd(0x8769)[0x927C] == b"maker's note" * 9


@pytest.mark.parametrize(
    "exif", [b"", b"II", b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"]
)
def test_damaged_exif_is_left_out(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(samples("RGB")).save(path := tmp_path / "a.png", exif=exif or None)
    found = read_image(path)
    assert found.exif is None
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        write_image(tmp_path / f"b{suffix}", found)


@pytest.mark.slow
@SETTINGS
@given(
    exif=st.binary(max_size=80), head=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"])
)
def test_random_exif_never_stops_a_picture(tmp_path: Path, exif: bytes, head: bytes) -> None:
    if not head + exif:
        return
    (path := tmp_path / "a.png").write_bytes(
        plain_png16(samples("RGB", np.uint16, 4, 5), (b"eXIf", head + exif))
    )
    found = read_image(path)
    assert sorted(found.pixels.shape) == [3, 4, 5]
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        write_image(target := tmp_path / f"b{suffix}", found)
        assert read_image(target).pixels.shape == found.pixels.shape


# ---- what is refused -----------------------------------------------------------------------------


def test_several_pictures_in_one_file(tmp_path: Path) -> None:
    frames = [Image.fromarray(samples("RGB")), Image.fromarray(samples("RGB")[::-1].copy())]
    for suffix in (".png", ".webp"):
        frames[0].save(path := tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        assert "an animation of 2 frames" in refusal(path)
    frames[0].save(path := tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert "a TIFF of 2 pages" in refusal(path)


def test_reduced_copies_and_appended_pictures_are_not_counted(tmp_path: Path) -> None:
    array = samples("RGB", np.uint16)
    with tifffile.TiffWriter(path := tmp_path / "a.tif") as file:
        file.write(array, photometric="rgb", metadata=None)
        file.write(array[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(path).pixels, array)
    first, second = Image.fromarray(samples("RGB")), Image.fromarray(samples("RGB")[:9].copy())
    first.save(path := tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    first.save(plain := tmp_path / "b.jpg", quality=95)
    np.testing.assert_array_equal(read_image(path).pixels, read_image(plain).pixels)


def test_decompression_bombs_and_their_cure(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">L", len(content))
            + kind
            + content
            + struct.pack(">L", zlib.crc32(kind + content))
        )

    header = struct.pack(">LLBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (path := tmp_path / "a.png").write_bytes(bomb)
    message = refusal(path)
    assert "60000x60000 is more than the limit" in message
    assert "max_pixels" in message
    write_image(path, Picture(samples("RGB")))
    with pytest.raises(PictureError, match="52x40 is more than the limit of 2000"):
        read_image(path, max_pixels=2000)
    assert read_image(path, max_pixels=2080).pixels.shape == (40, 52, 3)
    write_tifffile(path, samples("LA", np.uint16))
    with pytest.raises(PictureError, match="more than the limit"):
        read_image(path, max_pixels=2000)


def test_pillows_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    picture = Picture(samples("RGB"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for suffix in (".png", ".jpg"):
        write_image(path := tmp_path / f"a{suffix}", picture)
        assert read_image(path).pixels.shape == (40, 52, 3)
    # Its plugins for WebP and TIFF have come to check it: the error then names the other cure.
    for suffix in (".webp", ".tif"):
        write_image(path := tmp_path / f"a{suffix}", picture)
        message = ""
        try:
            read_image(path)
        except PictureError as error:
            message = str(error)
        assert not message or "raise PIL.Image.MAX_IMAGE_PIXELS" in message
    assert not recwarn.list


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"<html>", "not a PNG, JPEG, WebP or TIFF"),
        (b"GIF89a", "not a PNG, JPEG, WebP or TIFF"),
        (b"II*\0\x08\0\0\0", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"RIFF\x04\0\0\0WEBP", "truncated"),
    ],
)
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes, said: str) -> None:
    (path := tmp_path / "a.png").write_bytes(content)
    assert said in refusal(path)


def test_missing_files_folders_and_names(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "folder" in refusal(tmp_path)
    with pytest.raises(PictureError, match="cannot be read"):
        read_image("a\0b.png")


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_pixel_types_without_8_or_16_bits(tmp_path: Path, dtype: type) -> None:
    array = samples("L").squeeze().astype(dtype)
    tifffile.imwrite(path := tmp_path / "a.tif", array, photometric="minisblack")
    message = refusal(path)
    assert "convert" in message
    tifffile.imwrite(path, samples("RGBA", np.uint16), photometric="separated")
    assert "photometric interpretation 5" in refusal(path)


def valid_files(folder: Path) -> list[bytes]:
    if not (folder / "done").exists():
        for dtype, kind in itertools.product([np.uint8, np.uint16], KINDS):
            picture = picture_of(samples(kind, dtype, 20, 24), icc_profile=SRGB, dpi=(72.0, 72.0))
            suffixes = [".png", ".tif"]
            if dtype == np.uint8:
                suffixes += [".webp"] + ([".jpg"] if picture.alpha is None else [])
            for suffix in suffixes:
                write_image(folder / f"{kind}{np.dtype(dtype).itemsize}{suffix}", picture)
        (folder / "done").touch()
    return [path.read_bytes() for path in sorted(folder.glob("*.*")) if path.stem != "hostile"]


@SETTINGS
@given(draw=st.data())
def test_truncated_files(tmp_path: Path, draw: st.DataObject) -> None:
    """Refused, or complete: a format's closing bytes may be missing without a loss."""
    content = draw.draw(st.sampled_from(valid_files(tmp_path)))
    (path := tmp_path / "hostile.bin").write_bytes(content)
    whole = samples_of(read_image(path))
    length = draw.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:length])
    message = ""
    try:
        found = samples_of(read_image(path))
    except PictureError as error:
        message = str(error)
    else:
        np.testing.assert_array_equal(found, whole)
    assert "\n" not in message


@SETTINGS
@given(draw=st.data())
def test_damaged_files_give_picture_errors_only(tmp_path: Path, draw: st.DataObject) -> None:
    content = bytearray(draw.draw(st.sampled_from(valid_files(tmp_path))))
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.one_of(st.integers(0, 200), st.integers(0, len(content) - 1)))
        content[min(place, len(content) - 1)] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        cut = draw.draw(st.integers(8, 200))
        content[cut:] = draw.draw(st.binary(max_size=200))
    (path := tmp_path / "hostile.bin").write_bytes(content)
    message = ""
    try:
        read_image(path, max_pixels=10**6)
    except PictureError as error:
        message = str(error)
    assert "\n" not in message


# ---- writing -------------------------------------------------------------------------------------


def test_suffixes_and_folders(tmp_path: Path) -> None:
    picture = Picture(samples("RGB"))
    for name in ("a.gif", "a", "a.png.bak"):
        with pytest.raises(PictureError, match=r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff"):
            write_image(tmp_path / name, picture)
    with pytest.raises(PictureError, match="does not exist; create it first"):
        write_image(tmp_path / "missing" / "a.png", picture)
    write_image(tmp_path / "A.PNG", picture)
    (tmp_path / "folder.png").mkdir()
    for folder in ("folder.png", "."):
        with pytest.raises(PictureError, match="is a folder; name the picture to write in it"):
            write_image(tmp_path / folder, picture)
    for name in (f"{'a' * 300}.png", "null\0byte.png"):
        with pytest.raises(PictureError, match="cannot be written") as caught:
            write_image(tmp_path / name, picture)
        assert "\n" not in str(caught.value)


def test_jpeg_and_transparency(tmp_path: Path) -> None:
    array = samples("RGBA")
    with pytest.raises(PictureError, match="JPEG holds no transparency; write"):
        write_image(tmp_path / "a.jpg", picture_of(array))
    array[..., 3] = 255
    write_image(tmp_path / "a.jpg", picture_of(array))  # opaque: nothing is lost
    assert read_image(tmp_path / "a.jpg").alpha is None


def test_pictures_larger_than_a_format_allows(tmp_path: Path) -> None:
    wide = Picture(np.zeros((1, 70000, 1), np.uint8))
    for suffix, name in ((".jpg", "JPEG"), (".webp", "WebP")):
        with pytest.raises(PictureError, match=f"{name} cannot hold this picture of 70000x1"):
            write_image(tmp_path / f"a{suffix}", wide)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_image(path := tmp_path / "a.png", Picture(samples("RGB")))
    before = path.read_bytes()

    def fails(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:10])
        raise error

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises((PictureError, KeyboardInterrupt)):
        write_image(path, Picture(samples("L")))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind"
)
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (folder := tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PictureError, match="cannot be written"):
        write_image(folder / "a.png", Picture(samples("RGB")))


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((4, 4), np.uint8),),
        (np.zeros((4, 4, 2), np.uint8),),
        (np.zeros((4, 4, 3), np.float32),),
        (np.zeros((0, 4, 3), np.uint8),),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8)),
    ],
)
def test_arrays_that_are_no_pictures(arguments: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(PictureError):
        Picture(*arguments)


def test_single_pixels_and_byte_orders(tmp_path: Path) -> None:
    for suffix, dtype in itertools.product([".png", ".tif"], [np.uint8, np.uint16]):
        array = np.array([[[1, 2, 200]]], dtype)
        write_image(path := tmp_path / f"a{suffix}", Picture(array))
        np.testing.assert_array_equal(read_image(path).pixels, array)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(40, 56), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_planes_turned_into_pixels(
    tmp_path: Path, suffix: str, shape: tuple[int, int], channels: int
) -> None:
    """[H, W, C] with the strides that a network's result has: unusual in axes of length 1."""
    planes = np.arange(np.prod(shape) * channels, dtype=np.uint16).reshape(1, channels, *shape)
    pixels = np.ascontiguousarray((planes * 97).transpose(0, 2, 3, 1))[0]
    write_image(path := tmp_path / f"a{suffix}", Picture(pixels))
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    write_image(path, Picture(pixels, pixels[..., 0]))
    np.testing.assert_array_equal(read_image(path).alpha, pixels[..., 0])


def test_files_are_named_by_bytes_paths_too(tmp_path: Path) -> None:
    write_image(str(tmp_path / "ä ö.png"), Picture(samples("L")))
    assert io.BytesIO((tmp_path / "ä ö.png").read_bytes()).read(4) == b"\x89PNG"
    np.testing.assert_array_equal(read_image(str(tmp_path / "ä ö.png")).pixels, samples("L"))
