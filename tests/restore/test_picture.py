"""Pictures through engines, and files through a small HINet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restorert.backends.torch.run import TorchRunner
from restorert.errors import InputError, PictureError, RestorertError
from restorert.networks import create_network
from restorert.pictures.files import read_image, write_image
from restorert.pictures.picture import Picture
from restorert.restore import restore_image, restore_picture
from restorert.runtime import Engine


class HINetEngine:
    """A small HINet behind the engine's protocol: pads, runs in float64, crops, rounds uint8."""

    def __init__(self, tile: int | None = None) -> None:
        network = create_network("hinet", width=8, depth=2, hin_levels=(0, 1))
        channels = {"in_channels": 3, "out_channels": 3}
        self.spec = SimpleNamespace(**{**vars(network.spec), **channels, "tile": tile})
        self.network = network.double()
        self.dtypes = []

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        self.dtypes.append(frames.dtype)
        is_uint8 = frames.dtype == np.uint8
        x = torch.from_numpy(np.ascontiguousarray(frames)).double()
        if is_uint8:
            x = x.permute(0, 3, 1, 2) / 255
        height, width = x.shape[2:]
        x = torch.nn.functional.pad(x, (0, -width % 2, 0, -height % 2), mode="replicate")
        y = self.network(x)[..., :height, :width]
        if is_uint8:
            return (y.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return y.float().numpy()


def restored_in_float64(engine: HINetEngine, pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] in [0, 1], past every path of the package: even sizes only."""
    x = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    return engine.network(x)[0].permute(1, 2, 0).clamp(0, 1).numpy()


CROP = (slice(100, 164), slice(200, 270))


def test_8_bit_colour_goes_in_as_uint8() -> None:
    engine, pixels = HINetEngine(), data.astronaut()[CROP]
    restored = restore_picture(Picture(pixels), engine)
    assert engine.dtypes == [np.uint8]
    expected = np.rint(restored_in_float64(engine, pixels / 255) * 255)
    np.testing.assert_array_equal(restored.pixels, expected)


def test_16_bits_keep_their_precision() -> None:
    engine = HINetEngine()
    pixels = data.coffee()[CROP].astype(np.uint16) * 200 + 77
    restored = restore_picture(Picture(pixels), engine)
    assert engine.dtypes == [np.float32]
    assert restored.pixels.dtype == np.uint16
    expected = restored_in_float64(engine, pixels / 65535) * 65535
    # The protocol's float32 resolves 65535 * 2**-24.
    assert np.abs(restored.pixels - expected).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, 32])
def test_grey_is_replicated_and_averaged(dtype: type, tile: int | None) -> None:
    limit = np.iinfo(dtype).max
    pixels = (data.camera()[CROP].astype(np.float64) / 255 * limit).astype(dtype)[..., None]
    engine = HINetEngine()
    restored = restore_picture(Picture(pixels), engine, tile=tile)
    assert restored.pixels.shape == pixels.shape
    assert restored.pixels.dtype == dtype
    if tile is None:
        colour = engine.network(
            torch.from_numpy(pixels.astype(np.float64) / limit)
            .expand(-1, -1, 3)
            .permute(2, 0, 1)[None]
        )
        expected = colour[0].mean(dim=0).clamp(0, 1).numpy() * limit
        assert np.abs(restored.pixels[..., 0] - expected).max() <= 0.51


def test_tile_auto_is_the_specs() -> None:
    pixels = data.cat()[:50, :70]
    tiled = restore_picture(Picture(pixels), HINetEngine(tile=32)).pixels
    np.testing.assert_array_equal(
        tiled, restore_picture(Picture(pixels), HINetEngine(), tile=32).pixels
    )
    whole = restore_picture(Picture(pixels), HINetEngine(tile=32), tile=None).pixels
    np.testing.assert_array_equal(whole, restore_picture(Picture(pixels), HINetEngine()).pixels)
    assert (tiled != whole).any()  # instance statistics depend on the crop
    # A picture inside one tile is fed whole, as uint8.
    engine = HINetEngine(tile=256)
    restore_picture(Picture(pixels), engine)
    assert engine.dtypes == [np.uint8]
    with pytest.raises(InputError, match="tile"):
        restore_picture(Picture(pixels), engine, tile=0)


def test_everything_but_the_pixels_is_kept() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (64, 70), dtype=np.uint8)
    picture = Picture(data.astronaut()[CROP], alpha, b"profile", b"II*\0", (72.0, 96.0))
    restored = restore_picture(picture, HINetEngine())
    assert restored.alpha is alpha
    assert (restored.icc_profile, restored.exif, restored.dpi) == (
        b"profile",
        b"II*\0",
        (72.0, 96.0),
    )
    assert (picture.pixels == data.astronaut()[CROP]).all()


def test_engines_that_break_the_protocol() -> None:
    picture = Picture(data.cat()[:20, :20])

    class Broken(HINetEngine):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return frames[:, :-1]

    with pytest.raises(RestorertError, match="returned"):
        restore_picture(picture, Broken())
    engine = HINetEngine()
    engine.spec.in_channels = engine.spec.out_channels = 1
    with pytest.raises(InputError, match="maps 1 channels to 1"):
        restore_picture(picture, engine)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_files_from_end_to_end(tmp_path: Path, suffix: str) -> None:
    """A JPEG on its side: the restored file shows the picture upright, whatever the format."""
    upright = data.rocket()[:96, :128]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(
        tmp_path / "in.jpg", quality=100, subsampling=0, exif=exif, dpi=(300, 300)
    )
    engine = HINetEngine()
    restore_image(tmp_path / "in.jpg", target := tmp_path / f"out{suffix}", engine)
    with Image.open(tmp_path / "in.jpg") as source:
        turned = np.rot90(np.asarray(source), -1)
    expected = np.rint(restored_in_float64(engine, turned / 255) * 255)
    with Image.open(target) as found:
        np.testing.assert_array_equal(np.asarray(found.convert("RGB")), expected)
    assert read_image(target).dpi == pytest.approx((300, 300), rel=1e-4)


def test_in_place_and_16_bit_to_jpeg(tmp_path: Path) -> None:
    pixels = data.cat()[:32, :48].astype(np.uint16) * 257
    write_image(path := tmp_path / "a.png", Picture(pixels))
    restore_image(path, path, HINetEngine())
    restored = read_image(path)
    assert restored.pixels.dtype == np.uint16
    assert (restored.pixels != pixels).any()
    restore_image(path, tmp_path / "a.jpg", HINetEngine())
    assert read_image(tmp_path / "a.jpg").pixels.dtype == np.uint8


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    write_image(source := tmp_path / "a.png", Picture(data.cat()[:32, :48]))
    before = source.read_bytes()

    class Fails(HINetEngine):
        def __call__(self, frames: np.ndarray) -> np.ndarray:
            raise RestorertError("out of luck")

    for target in (source, tmp_path / "b.png"):
        with pytest.raises(RestorertError, match="luck"):
            restore_image(source, target, Fails())
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == [source]


def test_the_target_is_checked_before_the_work(tmp_path: Path) -> None:
    engine = HINetEngine()
    pixels = data.cat()[:32, :48]
    write_image(source := tmp_path / "a.png", Picture(pixels, pixels[..., 0]))
    (folder := tmp_path / "folder.png").mkdir()
    for name, message in (
        ("b.gif", "unknown suffix '.gif'; pictures are written as"),
        ("missing/b.png", "does not exist; create it first"),
        ("b.jpg", "JPEG holds no transparency"),
        ("folder.png", "is a folder"),
        ("a.png/b.png", "does not exist"),
        (f"{'b' * 300}.png", "cannot be written"),
        ("/proc/b.png", "cannot be written"),
    ):
        with pytest.raises(PictureError, match=message):
            restore_image(source, tmp_path / name, engine)
    # A source that is missing is told first: its user may have turned the two around.
    with pytest.raises(PictureError, match="no such file"):
        restore_image(tmp_path / "none.png", tmp_path / "b.gif", engine)
    assert engine.dtypes == []
    assert sorted(tmp_path.iterdir()) == [source, folder]


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_from_end_to_end(tmp_path: Path, channels: int) -> None:
    pixels = data.cat()[:40, :56, :channels].astype(np.uint16) * 257
    write_image(source := tmp_path / "a.png", Picture(pixels))
    restore_image(source, target := tmp_path / "b.png", HINetEngine())
    assert read_image(target).pixels.shape == pixels.shape


@pytest.mark.parametrize("kind", ["8-bit colour", "8-bit grey", "16-bit colour", "tiles"])
@pytest.mark.parametrize("falls_back", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_never_written(
    tmp_path: Path, kind: str, falls_back: bool, value: float
) -> None:
    network = create_network("hinet", width=8, depth=2, hin_levels=(0, 1))
    network.last.bias[0] = value
    safer = Engine(TorchRunner(network, device="cpu"), network.spec)
    fallback = (lambda: safer) if falls_back else None
    engine = Engine(TorchRunner(network, device="cpu"), network.spec, fallback=fallback)
    pixels = data.cat()[:32, :48, : 1 if "grey" in kind else 3]
    if "16-bit" in kind:
        pixels = pixels.astype(np.uint16) * 257
    write_image(path := tmp_path / "a.png", Picture(pixels))
    before = path.read_bytes()
    with pytest.raises(RestorertError, match=r"^hinet returned values that are not finite; "):
        restore_image(path, path, engine, tile=16 if kind == "tiles" else None)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
