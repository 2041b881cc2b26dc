"""Colours from any source through any encoder, against the formulas of the standards.

Sources are written without loss from samples that are computed here; what a file means is computed
here as well, from the samples and tags that FFmpeg reads out of it, without a conversion. The slow
half reads with the ``ffmpeg`` program, another release than PyAV's, where it is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from restorert.errors import VideoError
from restorert.pictures.picture import Picture
from restorert.restore import restore_video
from restorert.restore.video.colour import Colour
from restorert.restore.video.convert import FrameMaker, chroma_location

av = pytest.importorskip("av", reason="PyAV needs Python 3.11: pip install restorert[video]")

HEIGHT, WIDTH = 96, 128
SPEC = SimpleNamespace(name="fake", in_channels=3, out_channels=3, tile=None, rounding="nearest")


class Engine:
    """Changes nothing, and remembers what it saw."""

    def __init__(self) -> None:
        self.spec: Any = SPEC
        self.seen: list[NDArray[Any]] = []

    def __call__(self, frames: Any) -> Any:
        self.seen.append(frames.copy())
        return frames


MATRICES = {
    1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114),
    7: (0.212, 0.087), 9: (0.2627, 0.0593),
}  # fmt: skip
NAMES = {
    "gbr": 0,
    "bt709": 1,
    "fcc": 4,
    "bt470bg": 5,
    "smpte170m": 6,
    "smpte240m": 7,
    "bt2020nc": 9,
}


def scene() -> NDArray[Any]:
    """[96, 128, 3] in [0, 1]: eight flat patches, and a slope over hues that chroma can follow."""
    patches = [
        (255, 255, 255), (242, 26, 26), (25, 25, 25), (0, 0, 0),
        (30, 200, 60), (20, 40, 230), (128, 128, 128), (250, 220, 30),
    ]  # fmt: skip
    found = np.empty((HEIGHT, WIDTH, 3))
    for index, patch in enumerate(patches):
        top, left = 32 * (index // 4), 32 * (index % 4)
        found[top : top + 32, left : left + 32] = patch
    found[64:] = 128 + np.array([50, -30, 40]) * np.linspace(-1, 1, WIDTH)[:, None]
    return found / 255


# Inside a patch, where no sample of chroma or transform reaches another; and parts of the slope.
REGIONS = [
    *(
        np.s_[top + 12 : top + 20, left + 12 : left + 20]
        for top in (0, 32)
        for left in range(0, 128, 32)
    ),
    *(np.s_[76:84, left : left + 8] for left in range(16, 112, 8)),
]


class Stored(NamedTuple):
    """A frame as it is in a file: planes at their own size, and what their samples mean."""

    name: str
    planes: list[NDArray[Any]]
    matrix: int
    range: int


def parts(name: str) -> tuple[str, int]:
    """Kind ("yuv", "gray", "gbr") and bits of a planar format."""
    kind = "gray" if name.startswith("gray") else name[:3]
    tail = name[4:] if kind == "gray" else name.partition("p")[2]
    return kind, int(tail.removesuffix("le") or 8)


def larger(plane: NDArray[Any]) -> NDArray[Any]:
    """Chroma at the size of luma, interpolated between the middles of its samples."""
    for axis, size in enumerate((HEIGHT, WIDTH)):
        given = plane.shape[axis]
        if given != size:
            at = np.clip((np.arange(size) + 0.5) * given / size - 0.5, 0, given - 1)
            low = np.minimum(at.astype(int), given - 2)
            share = (at - low).reshape([-1 if axis == other else 1 for other in (0, 1)])
            plane = plane.take(low, axis) * (1 - share) + plane.take(low + 1, axis) * share
    return plane


def meaning(stored: Stored) -> NDArray[Any]:
    """[H, W, 3] in [0, 1], by ITU-R BT.709, section 3, and FFmpeg's rules for what is not said."""
    kind, bits = parts(stored.name.replace("yuvj", "yuv"))
    planes = [plane.astype(float) for plane in stored.planes]
    top = 2.0**bits - 1
    if kind == "gbr":
        return np.stack([planes[2], planes[0], planes[1]], axis=-1) / top
    full = stored.range == 2 or "yuvj" in stored.name or (kind == "gray" and stored.range == 0)
    unit = 2.0 ** (bits - 8)
    luma = planes[0] / top if full else (planes[0] - 16 * unit) / (219 * unit)
    if kind == "gray":
        return np.repeat(luma[..., None], 3, axis=-1)
    u, v = (larger(plane) for plane in planes[1:3])
    u, v = ((c - 128 * unit) / (top if full else 224 * unit) for c in (u, v))
    red, blue = MATRICES.get(stored.matrix, MATRICES[6])
    r, b = luma + 2 * (1 - red) * v, luma + 2 * (1 - blue) * u
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1)


def stored_scene(name: str, matrix: int, range_: int, rgb: NDArray[Any] | None = None) -> Stored:
    """`scene`, or another picture in [0, 1], in a planar format."""
    kind, bits = parts(name)
    rgb = scene() if rgb is None else rgb
    top, unit = 2.0**bits - 1, 2.0 ** (bits - 8)
    dtype = np.uint8 if bits == 8 else np.uint16
    if kind == "gbr":
        planes = [np.rint(rgb[..., c] * top).astype(dtype) for c in (1, 2, 0)]
        return Stored(name, planes, 0, range_)
    full = range_ == 2 or (kind == "gray" and range_ == 0)
    red, blue = MATRICES.get(matrix, MATRICES[6])
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    found = [luma * top if full else luma * 219 * unit + 16 * unit]
    if kind == "yuv":
        down, across = {"420": (2, 2), "422": (1, 2), "444": (1, 1)}[name[3:6]]
        for channel, share in ((2, blue), (0, red)):
            chroma = (rgb[..., channel] - luma) / (2 * (1 - share))
            chroma = chroma.reshape(HEIGHT // down, down, WIDTH // across, across).mean((1, 3))
            found.append(chroma * (top if full else 224 * unit) + 128 * unit)
    return Stored(
        name, [np.rint(plane).clip(0, top).astype(dtype) for plane in found], matrix, range_
    )


PACKED = {"bgr0": ([2, 1, 0, 0], 8), "rgb24": ([0, 1, 2], 8), "rgb48be": ([0, 1, 2], 16)}


def frame_of(stored: Stored, packed: str = "") -> Any:
    """A frame of PyAV; GBR planes are packed if asked for."""
    frame = av.VideoFrame(WIDTH, HEIGHT, packed or stored.name)
    planes: list[NDArray[Any]] = list(stored.planes)
    if packed:
        g, b, r = planes
        order, bits = PACKED[packed]
        whole = np.stack([(r, g, b)[c] for c in order], axis=-1)
        planes = [whole.astype(">u2" if bits == 16 else np.uint8).reshape(HEIGHT, -1)]
    for plane, samples in zip(frame.planes, planes, strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        row = np.ascontiguousarray(samples).view(np.uint8)
        lines[:, : row.shape[1]] = row
    frame.colorspace, frame.color_range = stored.matrix, stored.range
    return frame


def write_source(path: Path, stored: Stored, codec: str = "ffv1", packed: str = "") -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=24)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = packed or stored.name
        context = stream.codec_context
        context.colorspace, context.color_range = stored.matrix, stored.range
        if codec == "libx265":
            stream.options["x265-params"] = "lossless=1:bframes=0:log-level=error"
        for index in range(2):
            frame = frame_of(stored, packed)
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def planes_of_bytes(data: bytes, name: str) -> list[NDArray[Any]]:
    """The planes of a frame, packed without gaps."""
    _, bits = parts(name.replace("yuvj", "yuv"))
    layout = av.VideoFormat(name, WIDTH, HEIGHT)
    across, down = layout.chroma_width(), layout.chroma_height()
    flat = np.frombuffer(data, np.uint8 if bits == 8 else "<u2")
    sizes = [(HEIGHT, WIDTH)]
    if not name.startswith("gray"):
        sizes += [(down, across)] * 2 if name.startswith("yuv") else [(HEIGHT, WIDTH)] * 2
    found, at = [], 0
    for height, width in sizes:
        found.append(flat[at : at + height * width].reshape(height, width))
        at += height * width
    return found


def plain(name: str) -> str:
    """A planar format without transparency that holds the same samples."""
    layout = av.VideoFormat(name, 64, 64)
    bits = min(max(8, *(c.bits for c in layout.components)), 16)
    depth = "" if bits == 8 else f"{bits}le"
    if layout.is_rgb or layout.has_palette:
        return f"gbrp{depth}"
    if name.startswith(("gray", "ya")):
        return f"gray{depth}"
    chroma = layout.chroma_width(), layout.chroma_height()
    kind = {(64, 64): 444, (32, 64): 422, (32, 32): 420, (16, 64): 411, (16, 16): 410}[chroma]
    return f"{name[:4].replace('yuva', 'yuv') if name[:4] == 'yuvj' else 'yuv'}{kind}p{depth}"


def read_by_pyav(path: Path) -> Stored:
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[-1]
    stored = frame.format.name
    if stored == "grayf32le":  # swscale takes it for limited range
        lines = np.frombuffer(frame.planes[0], "<f4").reshape(HEIGHT, -1)[:, :WIDTH]
        return Stored("gray16le", [np.rint(lines * 65535).astype(np.uint16)], 2, 0)
    if plain(stored) != stored:
        kept = 2 if "f32" in stored else 0
        frame = frame.reformat(
            format=plain(stored), interpolation="POINT", src_color_range=kept, dst_color_range=kept
        )
    planes = []
    deep = frame.format.components[0].bits > 8
    for plane in frame.planes:
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        row = np.ascontiguousarray(lines[:, : plane.width * (1 + deep)])
        planes.append(row.view("<u2" if deep else np.uint8))
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
    return Stored(plain(stored), planes, int(first.colorspace), int(first.color_range))


def read_by_ffmpeg(path: Path) -> Stored:
    """The last frame, by the ``ffmpeg`` program."""
    facts = "stream=pix_fmt,color_range,color_space"
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v",
        "-show_entries",
        facts,
        "-of",
        "json",
    ]
    told = subprocess.run([*command, str(path)], capture_output=True, check=True)
    (stream,) = json.loads(told.stdout)["streams"]
    floats = stream["pix_fmt"] == "grayf32le"  # swscale takes it for limited range
    name = "grayf32le" if floats else plain(stream["pix_fmt"])
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", name, "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    range_ = {"tv": 1, "pc": 2}.get(stream.get("color_range", ""), 0)
    matrix = NAMES.get(stream.get("color_space", ""), 2)
    if floats:
        samples = np.frombuffer(data, "<f4")[HEIGHT * WIDTH :].reshape(HEIGHT, WIDTH)
        return Stored("gray16le", [np.rint(samples * 65535).astype(np.uint16)], 2, 0)
    return Stored(name, planes_of_bytes(data[len(data) // 2 :], name), matrix, range_)


def sources() -> dict[str, tuple[Stored, str, str, str]]:
    """Name -> what is stored, encoder, packed format, suffix."""
    found = {
        "rgb24": (stored_scene("gbrp", 0, 0), "png", "rgb24", ".mov"),
        "rgb48": (stored_scene("gbrp16le", 0, 0), "png", "rgb48be", ".mov"),
        "bgr0": (stored_scene("gbrp", 0, 0), "ffv1", "bgr0", ".mkv"),
        "gbrp": (stored_scene("gbrp", 0, 2), "libx265", "", ".mp4"),
        "gbrp10": (stored_scene("gbrp10le", 0, 0), "ffv1", "", ".mkv"),
        "gbrp16": (stored_scene("gbrp16le", 0, 0), "ffv1", "", ".mkv"),
    }
    for range_, said in enumerate(("", "-limited", "-full")):
        for name in ("gray", "gray10le", "gray16le"):
            found[name + said] = (stored_scene(name, 2, range_), "ffv1", "", ".mkv")
    for matrix in (6, 1, 9):
        for range_, said in ((1, "limited"), (2, "full")):
            for kind in ("420", "422", "444"):
                for depth in ("", "10le", "12le"):
                    name = f"yuv{kind}p{depth}"
                    stored = stored_scene(name, matrix, range_)
                    found[f"{name}-{matrix}-{said}"] = (stored, "ffv1", "", ".mkv")
    found["yuv420p-unsaid"] = (stored_scene("yuv420p", 2, 0), "ffv1", "", ".mkv")
    return found


SOURCES = sources()

# Encoder, suffix, options that make it lose least, levels of 8 bits on top of what its pixel format
# costs. Measured worst errors are in `test_every_encoder_writes_the_colours_of_every_source`.
BEST = {"flags": "+qscale", "global_quality": "118"}
ENCODERS: dict[str, tuple[str, str, dict[str, str], float]] = {
    "libx264": ("libx264", ".mp4", {"crf": "0"}, 0.5),
    "libx264 mov": ("libx264", ".mov", {"crf": "0"}, 0.5),
    "libx264rgb": ("libx264rgb", ".mkv", {"crf": "0"}, 0),
    "libx265": ("libx265", ".mkv", {"x265-params": "lossless=1:log-level=error"}, 0),
    "libx265 mov": ("libx265", ".mov", {"x265-params": "lossless=1:log-level=error"}, 0),
    "libvpx-vp9": ("libvpx-vp9", ".webm", {"lossless": "1", "crf": "0"}, 0),
    "libvpx-vp9 mp4": ("libvpx-vp9", ".mp4", {"lossless": "1", "crf": "0"}, 0),
    "libvpx": ("libvpx", ".webm", {"crf": "4", "b": "50M"}, 1),
    "libsvtav1": ("libsvtav1", ".mkv", {"crf": "1"}, 1),
    "libsvtav1 mp4": ("libsvtav1", ".mp4", {"crf": "1"}, 1),
    "ffv1": ("ffv1", ".mkv", {}, 0),
    "ffv1 mp4": ("ffv1", ".mp4", {}, 0),
    "prores_ks": ("prores_ks", ".mov", {}, 0),
    "prores_ks mkv": ("prores_ks", ".mkv", {}, 0),
    "prores": ("prores", ".mov", {}, 0),
    "prores_aw": ("prores_aw", ".mov", {}, 0),
    "mjpeg": ("mjpeg", ".mov", BEST, 1),
    "mjpeg mkv": ("mjpeg", ".mkv", BEST, 1),
    "mpeg1video": ("mpeg1video", ".mkv", BEST, 1),
    "mpeg2video": ("mpeg2video", ".mkv", BEST, 1),
    "mpeg4": ("mpeg4", ".mp4", BEST, 1),
    "msmpeg4": ("msmpeg4", ".mkv", BEST, 1),
    "jpeg2000": ("jpeg2000", ".mov", {"pred": "dwt53"}, 1),
    "snow": ("snow", ".mkv", {"pred": "dwt53", **BEST}, 1),
    "png": ("png", ".mov", {}, 0),
    "qtrle": ("qtrle", ".mov", {}, 0),
    "tiff": ("tiff", ".mov", {}, 0),
    "targa": ("targa", ".mov", {}, 0),
    "sgi": ("sgi", ".mov", {}, 0),
    "dpx": ("dpx", ".mov", {}, 0),
    "exr": ("exr", ".mov", {}, 0),
    "magicyuv": ("magicyuv", ".mov", {}, 0),
    "cfhd": ("cfhd", ".mov", {}, 1),
    "rawvideo": ("rawvideo", ".mkv", {}, 0),
    "v210": ("v210", ".mov", {}, 0),
    "v308": ("v308", ".mov", {}, 0),
    "v408": ("v408", ".mov", {}, 0),
    "v410": ("v410", ".mov", {}, 0),
    "y41p": ("y41p", ".mov", {}, 0.5),
    "yuv4": ("yuv4", ".mov", {}, 0),
    "r10k": ("r10k", ".mov", {}, 0),
    "r210": ("r210", ".mov", {}, 0),
    "avrp": ("avrp", ".mov", {}, 0),
}


def worst(tmp_path: Path, source: str, encoder: str, reader: Any) -> tuple[float, float, str]:
    """The largest error in levels of 8 bits, what is allowed, and what was written."""
    stored, codec, packed, suffix = SOURCES[source]
    path = write_source(tmp_path / f"in{suffix}", stored, codec, packed)
    name, suffix, options, more = ENCODERS[encoder]
    target = tmp_path / f"out{suffix}"
    restore_video(path, target, Engine(), codec=name, options=options)
    found = reader(target)
    wanted = np.clip(meaning(reader(path)), 0, 1)
    grey = parts(stored.name)[0] == "gray"
    off = np.clip(meaning(found), 0, 1) - wanted
    # The noise of a lossy encoder is not an error of colour.
    error = max(np.abs(off[r].mean((0, 1)) if more else off[r]).max() for r in REGIONS) * 255
    halved = ("420", "422", "411", "410")
    smaller = not grey and (found.name[3:6] in halved or stored.name[3:6] in halved)
    same = found.name == stored.name and found.range == stored.range
    allowed = (3 if smaller else 1 if same else 2) + more
    return float(error), allowed, f"{found.name} matrix {found.matrix} range {found.range}"


# One source of each kind.
KINDS = (
    "rgb24", "gbrp16", "gray", "gray10le-limited", "yuv420p-1-full", "yuv444p-6-limited",
    "yuv422p10le-9-full", "yuv420p12le-1-limited",
)  # fmt: skip
# Matroska has names for few raw formats.
RAW = ("yuv420p-", "gray-")


def check(tmp_path: Path, pairs: Iterable[tuple[str, str]], reader: Any) -> None:
    wrong = []
    for index, (source, encoder) in enumerate(pairs):
        folder = tmp_path / str(index)
        folder.mkdir()
        try:
            error, allowed, what = worst(folder, source, encoder, reader)
        except VideoError:
            if encoder == "rawvideo" and source != "gray" and not source.startswith(RAW):
                continue
            raise
        if error > allowed:
            wrong.append(f"{source} by {encoder}: {error:.2f} levels of {allowed}, {what}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_writes_the_colours_of_each_kind_of_source(tmp_path: Path, encoder: str) -> None:
    check(tmp_path, [(source, encoder) for source in KINDS], read_by_pyav)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_writes_the_colours_of_every_source(tmp_path: Path, encoder: str) -> None:
    # Measured, in levels of 8 bits: 0.5 without loss, 1.8 from or to 8-bit 4:4:4, 2.6 from or to
    # halved chroma, and 2.5 for the mean over a patch of lossy encoders.
    check(tmp_path, [(source, encoder) for source in SOURCES], read_by_pyav)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_ffmpeg_program_reads_the_same_colours(tmp_path: Path, encoder: str) -> None:
    check(tmp_path, [(source, encoder) for source in KINDS], read_by_ffmpeg)


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("kind", ["420", "444"])
def test_ten_generations_do_not_drift(tmp_path: Path, kind: str, full: bool, depth: int) -> None:
    rng = np.random.default_rng(7)
    name = f"yuv{kind}p" + ("" if depth == 8 else f"{depth}le")
    # Random colours in patches of 8, none so pure that RGB in [0, 1] could not hold it.
    patches = np.kron(rng.uniform(0.3, 0.7, (HEIGHT // 8, WIDTH // 8, 3)), np.ones((8, 8, 1)))
    stored = stored_scene(name, 1, 2 if full else 1, patches)
    path = write_source(tmp_path / "0.mkv", stored)
    for generation in range(10):
        target = tmp_path / f"{generation + 1}.mkv"
        restore_video(path, target, Engine(), codec="ffv1")
        path = target
    found = read_by_pyav(path)
    assert (found.name, found.matrix, found.range) == (name, 1, stored.range)
    for old, new in zip(stored.planes, found.planes, strict=True):
        shift = new.astype(float) - old
        # measured, in levels of 8 bits: 0 in 4:4:4, 0.07 in 4:2:0; in full range it was 4.6
        assert abs(shift.mean()) < 0.1 * 2 ** (depth - 8)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "ffv1", "mjpeg"])
def test_chroma_stays_where_it_is(tmp_path: Path, codec: str) -> None:
    """A slope of chroma shows a shift; H.264 puts chroma beside luma's samples, JPEG between."""
    name = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    slope = np.tile((60 + 2 * np.arange(WIDTH // 2)).astype(np.uint8), (HEIGHT // 2, 1))
    luma = np.full((HEIGHT, WIDTH), 128, np.uint8)
    flat = np.full_like(slope, 128)
    stored = Stored(name, [luma, slope, flat], 5, 2 if codec == "mjpeg" else 1)
    path = write_source(tmp_path / "0.mkv", stored, codec)
    before = read_by_pyav(path).planes[1]
    for generation in range(4):
        target = tmp_path / f"{generation + 1}.mkv"
        restore_video(path, target, Engine(), codec="libx264", crf=0)
        path = target
    after = read_by_pyav(path)
    shift = (after.planes[1].astype(float) - before)[8:-8, 16:-16]
    # measured: 0.2 levels; with the sites of swscale's defaults 2 levels in four generations
    assert abs(shift.mean()) < 0.5
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert chroma_location(frame) == ("center" if codec == "mjpeg" else "left")


def test_chroma_location_is_read_off_the_decoder() -> None:
    for location in ("left", "topleft", "center"):
        made = FrameMaker("yuv420p", Colour(1, 1, 1, 1), WIDTH, HEIGHT, location)
        frame = made(Picture(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
        assert chroma_location(frame) == location


def test_rgb_comes_out_of_yuv_as_it_was(tmp_path: Path) -> None:
    """White came out green, and red (242, 26, 26) as (239, 90, 92)."""
    stored, codec, packed, _ = SOURCES["gbrp"]
    source = write_source(tmp_path / "in.mp4", stored, codec, packed)
    restore_video(source, tmp_path / "out.mkv", Engine())
    with av.open(str(tmp_path / "out.mkv")) as container:
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == (6, 1)
    found = meaning(read_by_pyav(tmp_path / "out.mkv")) * 255
    assert np.abs(found[16, 16] - 255).max() < 2
    assert np.abs(found[16, 48] - (242, 26, 26)).max() < 3


@pytest.mark.parametrize(
    ("codec", "suffix"), [("png", ".mov"), ("libx264rgb", ".mkv"), ("qtrle", ".mov")]
)
def test_encoders_that_hold_on_to_frames_get_their_own(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    """Frames that are not converted on their way must not be written over."""
    with av.open(str(tmp_path / "in.mov"), "w") as output:
        stream = output.add_stream("png", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        for index in range(40):
            pixels = np.full((HEIGHT, WIDTH, 3), 6 * index, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    target = tmp_path / f"out{suffix}"
    options = {"crf": "0"} if codec == "libx264rgb" else {}
    restore_video(tmp_path / "in.mov", target, Engine(), codec=codec, options=options)
    with av.open(str(target)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [np.unique(frame).tolist() for frame in found] == [[6 * index] for index in range(40)]


def test_colours_that_cannot_be_computed_are_refused(tmp_path: Path) -> None:
    stored = Stored("yuv420p", stored_scene("yuv420p", 9, 1).planes, 14, 1)
    source = write_source(tmp_path / "in.mkv", stored)
    with pytest.raises(VideoError, match=r"stores its colours as ICtCp.*zscale"):
        restore_video(source, tmp_path / "out.mkv", Engine())


def test_ycgco_is_computed(tmp_path: Path) -> None:
    rgb = scene()
    r, g, b = (rgb[..., c] for c in range(3))
    luma, green, orange = r / 4 + g / 2 + b / 4, -r / 4 + g / 2 - b / 4, (r - b) / 2
    planes = [255 * luma, 255 * green + 128, 255 * orange + 128]
    stored = Stored("yuv444p", [np.rint(p).clip(0, 255).astype(np.uint8) for p in planes], 8, 2)
    source = write_source(tmp_path / "in.mkv", stored)
    engine = Engine()
    restore_video(source, tmp_path / "out.mkv", engine, codec="ffv1")
    assert np.abs(engine.seen[0][0] - rgb * 255).max() < 2  # measured: 1.5, from rounding Y, Cg, Co
    found = read_by_pyav(tmp_path / "out.mkv")
    assert found.matrix == 8
    assert (
        max(
            np.abs(a.astype(int) - b).max()
            for a, b in zip(found.planes, stored.planes, strict=True)
        )
        <= 1
    )


if __name__ == "__main__":
    import sys
    import tempfile

    for source in SOURCES:
        for encoder in ENCODERS:
            if len(sys.argv) > 1 and encoder.split()[0] not in sys.argv[1:]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    error, allowed, what = worst(Path(folder), source, encoder, read_by_pyav)
                except Exception as problem:
                    print("RAISED", source, encoder, type(problem).__name__, str(problem)[:200])
                    continue
                print(
                    "BAD" if error > allowed else "ok",
                    source,
                    encoder,
                    f"{error:.2f}",
                    allowed,
                    what,
                )
