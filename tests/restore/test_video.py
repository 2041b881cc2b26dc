"""Videos: what a file holds must come out again, and the network must see true colours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from restorert.errors import Cure, DeviceMemoryError, InputError, RestorertError, VideoError
from restorert.restore import VideoReport, restore_picture, restore_video
from restorert.restore.video import encode
from restorert.restore.video.convert import to_picture

av = pytest.importorskip("av", reason="PyAV needs Python 3.11: pip install restorert[video]")

SPEC = SimpleNamespace(name="fake", in_channels=3, out_channels=3, tile=None, rounding="nearest")


class Engine:
    """Does ``work`` to each frame, by default nothing, and remembers what it saw."""

    def __init__(self, work: Callable[[Any], Any] = lambda frames: frames) -> None:
        self.spec: Any = SPEC
        self.work = work
        self.seen: list[NDArray[Any]] = []

    def __call__(self, frames: Any) -> Any:
        self.seen.append(frames.copy())
        return self.work(frames)


def smooth(height: int, width: int, frame: int = 0) -> NDArray[np.uint8]:
    """A coloured picture of slow slopes, which chroma at half size can hold."""
    y, x = np.mgrid[:height, :width]
    planes = [
        128 + 90 * np.sin(2 * np.pi * (x / (37 + 9 * c) + y / (53 + 7 * c) + frame / 20 + c / 3))
        for c in range(3)
    ]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def planes_of(frame: Any) -> list[NDArray[Any]]:
    """The samples as they are stored, without the padding of the lines."""
    deep = frame.format.components[0].bits > 8
    found = []
    for plane in frame.planes:
        packed = len(frame.planes) == 1
        size = frame.format.padded_bits_per_pixel // 8 if packed else (2 if deep else 1)
        lines = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        samples = np.ascontiguousarray(lines[: plane.height, : plane.width * size])
        found.append(samples.view(np.uint16 if deep else np.uint8))
    return found


def write(
    path: Path,
    *,
    codec: str = "ffv1",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (48, 64),
    pts: Sequence[int] = range(6),
    time_base: Fraction = Fraction(1, 24),
    options: dict[str, str] | None = None,
    prepare: Callable[[Any, Any], None] | None = None,
    frames: Sequence[Any] | None = None,
    after: Callable[[Any], None] | None = None,
) -> Path:
    """A video of `smooth`, or of ``frames``."""
    height, width = size
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=24, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = time_base
        if prepare:
            prepare(output, stream)
        for index, at in enumerate(pts):
            if frames is not None:
                frame = frames[index]
            else:
                frame = av.VideoFrame.from_ndarray(smooth(height, width, index), format="rgb24")
                frame = frame.reformat(format=pixel_format, src_color_range=2)
            frame.pts, frame.time_base = at, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if after:
            after(output)
    return path


def read(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path: Path) -> list[float]:
    return [float(frame.time) for frame in read(path)]


@pytest.mark.parametrize(
    ("pixel_format", "levels"),
    # The largest difference allowed of two stored samples. Chroma of half the size is interpolated
    # and averaged again; measured, at the borders: 1 of 8 bits, 10 of 10 bits, 24 of 12 bits.
    [
        ("bgr0", 0),
        ("bgra", 0),
        ("gbrp10le", 0),
        ("gbrp12le", 0),
        ("gbrp16le", 0),
        ("gray", 0),
        ("gray16le", 0),
        ("yuv444p", 0),
        ("yuv444p10le", 0),
        ("yuv422p", 3),
        ("yuv420p", 3),
        ("yuva420p", 3),
        ("yuv422p10le", 20),
        ("yuv420p10le", 12),
        ("yuv420p12le", 48),
    ],
)
def test_frames_that_the_engine_leaves_alone_stay_as_they_are(
    tmp_path: Path, pixel_format: str, levels: int
) -> None:
    source = write(tmp_path / "in.mkv", pixel_format=pixel_format, size=(46, 66))
    engine = Engine()
    report = restore_video(source, tmp_path / "out.mkv", engine, codec="ffv1")
    assert report == VideoReport(frames=6, damaged=0, dropped=())
    assert not report.incomplete
    before, after = read(source), read(tmp_path / "out.mkv")
    assert len(before) == len(after) == 6
    worst = 0
    for old, new in zip(before, after, strict=True):
        assert old.format.name == new.format.name == pixel_format
        for a, b in zip(planes_of(old), planes_of(new), strict=True):
            assert a.shape == b.shape
            worst = max(worst, int(np.abs(a.astype(int) - b.astype(int)).max()))
    assert worst <= levels, worst
    deep = any(component.bits > 8 for component in before[0].format.components)
    grey = pixel_format.startswith("gray")
    # 8-bit colour goes to the engine as it is, everything else as floats.
    assert engine.seen[0].dtype == (np.float32 if deep or grey else np.uint8)


KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def to_yuv(rgb: NDArray[Any], kr: float, kb: float, *, full: bool) -> NDArray[Any]:
    """[H, W, 3] in [0, 1] to the three 8-bit planes; ITU-R BT.709, section 3."""
    r, g, b = (rgb[..., i] for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if full:
        scaled = np.stack([255 * y, 255 * u + 128, 255 * v + 128])
    else:
        scaled = np.stack([219 * y + 16, 224 * u + 128, 224 * v + 128])
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [*KR_KB, "unsaid 720", "unsaid 576"])
def test_the_engine_sees_the_colours_that_the_file_means(
    tmp_path: Path, matrix: int | str, full: bool
) -> None:
    height, width = (720, 32) if matrix == "unsaid 720" else (576, 32)
    meant = {"unsaid 720": 1, "unsaid 576": 5}.get(str(matrix), matrix)
    rng = np.random.default_rng(3)
    rgb = rng.uniform(0.1, 0.9, (height, width, 3))
    frame = av.VideoFrame.from_ndarray(to_yuv(rgb, *KR_KB[int(meant)], full=full), format="yuv444p")
    said = matrix if isinstance(matrix, int) else 2

    def prepare(_: Any, stream: Any) -> None:
        stream.codec_context.colorspace = said
        stream.codec_context.color_range = 2 if full else 1

    source = write(
        tmp_path / "in.mkv", pixel_format="yuv444p", size=(height, width), pts=[0],
        frames=[frame], prepare=prepare,
    )  # fmt: skip
    engine = Engine()
    restore_video(source, tmp_path / "out.mkv", engine, codec="ffv1")
    # measured: 1.7 levels, most of it from rounding Y, U and V
    assert np.abs(engine.seen[0][0] / 255 - rgb).max() * 255 < 2.5
    (after,) = read(tmp_path / "out.mkv")
    assert (after.colorspace, after.color_range) == (said, 2 if full else 1)
    stored = np.abs(after.to_ndarray().astype(int) - frame.to_ndarray().astype(int))
    assert stored.max() <= 2  # measured: 1


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    pts = [0, 1, 5, 6, 30, 31, 90]
    source = write(
        tmp_path / "in.mp4",
        codec="libx264",
        pts=[p * 100 for p in pts],
        time_base=Fraction(1, 9000),
    )
    assert restore_video(source, tmp_path / "out.mp4", Engine()).frames == 7
    assert times(tmp_path / "out.mp4") == times(source) == [p * 100 / 9000 for p in pts]


def test_frames_without_times_get_them(tmp_path: Path) -> None:
    source = write(tmp_path / "in.h264", codec="libx264", options={"bf": "2"})
    assert restore_video(source, tmp_path / "out.mp4", Engine()).frames == 6
    found = times(tmp_path / "out.mp4")
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert found[1] > found[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".m4v"])
def test_what_surrounds_the_frames_is_kept(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    sound: list[Any] = []

    def prepare(output: Any, stream: Any) -> None:
        context = stream.codec_context
        context.sample_aspect_ratio = Fraction(4, 3)
        context.colorspace, context.color_range = 1, 1
        context.color_primaries, context.color_trc = 1, 1
        stream.set_display_rotation(90)
        output.metadata["title"] = "A day"
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000),
              "metadata": {"title": "One"}}]
        )  # fmt: skip
        sound.append(output.add_stream("aac", rate=44100))

    def after(output: Any) -> None:
        for index in range(12):
            noise = (rng.standard_normal((1, 1024)) * 0.1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, index * 1024
            output.mux(sound[0].encode(frame))
        output.mux(sound[0].encode(None))

    source = write(tmp_path / f"in{suffix}", codec="libx264", prepare=prepare, after=after)
    target = tmp_path / f"out{suffix}"
    assert restore_video(source, target, Engine()).dropped == ()

    def facts(path: Path) -> list[Any]:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            found: list[Any] = [
                container.metadata.get("title"),
                video.sample_aspect_ratio,
                [(c["start"] * c["time_base"], c["metadata"]) for c in container.chapters()],
            ]
            (audio,) = container.streams.audio
            packets = [p for p in container.demux(audio) if p.dts is not None]
            found.append([(float(p.pts * p.time_base), bytes(p)) for p in packets])
        first = read(path)[0]
        tags = (first.colorspace, first.color_range, first.color_primaries, first.color_trc)
        return [*found, first.rotation, tags]

    before, now = facts(source), facts(target)
    assert now == before
    assert before[0] == "A day"
    assert before[1] == Fraction(4, 3)
    assert len(before[3]) >= 12
    assert before[4] in (90, -270)
    assert before[5] == (1, 1, 1, 1)


def subtitled(path: Path) -> Path:
    text: list[Any] = []

    def prepare(output: Any, _: Any) -> None:
        text.append(output.add_mux_stream("subrip"))

    def after(output: Any) -> None:
        packet = av.Packet(b"Hello")
        packet.stream, packet.pts, packet.dts, packet.duration = text[0], 0, 0, 200
        packet.time_base = Fraction(1, 1000)
        output.mux(packet)

    return write(path, prepare=prepare, after=after)


def test_subtitles_are_kept_or_the_target_refused(tmp_path: Path) -> None:
    source = subtitled(tmp_path / "in.mkv")
    restore_video(source, tmp_path / "out.mkv", Engine())
    with av.open(str(tmp_path / "out.mkv")) as container:
        (stream,) = container.streams.subtitles
        assert [bytes(p) for p in container.demux(stream) if p.size] == [b"Hello"]
    with pytest.raises(
        VideoError, match=r"\.mp4 cannot hold its subtitle \(srt\) .*; write out\.mkv"
    ):
        restore_video(source, tmp_path / "out.mp4", Engine())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_transparency_is_kept_or_the_encoder_refused(tmp_path: Path) -> None:
    pixels = np.dstack([smooth(48, 64), np.full((48, 64), 99, np.uint8)])
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgra")
    source = write(tmp_path / "in.mkv", pixel_format="bgra", pts=[0], frames=[frame])
    with pytest.raises(VideoError, match="libx264 cannot hold the transparency of bgra; write"):
        restore_video(source, tmp_path / "out.mp4", Engine())
    restore_video(source, tmp_path / "out.mov", Engine(), codec="prores_ks")
    assert "a" in read(tmp_path / "out.mov")[0].format.name


@pytest.mark.slow
def test_the_network_restores_each_frame_as_a_picture(tmp_path: Path) -> None:
    import restorert as rr

    network = rr.load_network("hinet-tiny")
    engine = rr.build_engine(network, runner="torch")
    rng = np.random.default_rng(5)
    clean = [smooth(40, 56, index) for index in range(3)]
    noisy = [
        np.clip(picture + rng.normal(0, 25, picture.shape), 0, 255).astype(np.uint8)
        for picture in clean
    ]
    frames = [av.VideoFrame.from_ndarray(n, format="rgb24").reformat(format="bgr0") for n in noisy]
    source = write(
        tmp_path / "in.mkv", pixel_format="bgr0", size=(40, 56), pts=range(3), frames=frames
    )
    rr.restore_video(source, tmp_path / "out.mkv", engine, codec="ffv1")
    for given_, restored, wanted in zip(
        read(source), read(tmp_path / "out.mkv"), clean, strict=True
    ):
        found = restored.to_ndarray(format="rgb24")
        assert np.array_equal(found, restore_picture(to_picture(given_), engine).pixels)
        before = np.square(given_.to_ndarray(format="rgb24").astype(float) - wanted).mean()
        assert np.square(found.astype(float) - wanted).mean() < before / 8  # measured: 1/30


def test_progress_counts_the_frames(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv")
    told: list[tuple[int, int]] = []
    restore_video(
        source, tmp_path / "out.mkv", Engine(), progress=lambda done, of: told.append((done, of))
    )
    assert told == [(done, 6) for done in range(1, 7)]


def test_a_video_can_be_restored_in_place(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv")
    restore_video(source, source, Engine(lambda frames: 255 - frames), codec="ffv1")
    found = read(source)[0].to_ndarray(format="rgb24").astype(int)
    # measured: 17 levels at the borders, where chroma has half the size
    assert np.abs(255 - smooth(48, 64).astype(int) - found).mean() < 6


def leftovers(folder: Path, *known: str) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in known)


@pytest.mark.parametrize("error", [RestorertError("broken"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_nothing_and_loses_nothing(
    tmp_path: Path, error: BaseException, existing: bool
) -> None:
    source = write(tmp_path / "in.mkv", pts=range(40))
    target = tmp_path / "out.mkv"
    if existing:
        target.write_bytes(b"older")
    calls = 0

    def work(frames: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise error
        return frames

    with pytest.raises(type(error)) as caught:
        restore_video(source, target, Engine(work))
    if isinstance(error, MemoryError):
        assert isinstance(caught.value, DeviceMemoryError)
        assert caught.value.args == (f"{source}: not enough memory",)
        assert caught.value.cure is Cure.TILES
    assert leftovers(tmp_path, "in.mkv") == (["out.mkv"] if existing else [])
    if existing:
        assert target.read_bytes() == b"older"
    assert not [t for t in threading.enumerate() if t.name.startswith("restorert-video")]


def test_an_encoder_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.mkv")
    calls = iter(range(10))

    class Fails(encode.FrameMaker):
        def __call__(self, picture: Any) -> Any:
            if next(calls) == 3:
                raise av.error.ExternalError(1, "Generic error in an external library")
            return super().__call__(picture)

    monkeypatch.setattr(encode, "FrameMaker", Fails)
    with pytest.raises(VideoError, match=r"out\.mkv cannot be written: Generic error"):
        restore_video(source, tmp_path / "out.mkv", Engine())
    assert leftovers(tmp_path) == ["in.mkv"]


def test_what_a_damaged_file_still_holds_is_restored(tmp_path: Path) -> None:
    whole = write(tmp_path / "in.mkv", codec="libx264", pts=range(60), options={"g": "10"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 2 // 3])
    report = restore_video(cut, tmp_path / "out.mkv", Engine())
    assert report.incomplete
    assert 10 <= report.frames < 60
    assert len(read(tmp_path / "out.mkv")) == report.frames
    holes = bytearray(data)
    rng = np.random.default_rng(0)
    for at in rng.integers(1500, len(data), 60):
        holes[at] ^= 0xFF
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(holes)
    report = restore_video(damaged, tmp_path / "out.mkv", Engine())
    assert report.incomplete


def test_frames_of_other_sizes_and_fields_are_refused(tmp_path: Path) -> None:
    both = tmp_path / "both.h264"
    parts = [
        write(tmp_path / f"{n}.h264", codec="libx264", size=size).read_bytes()
        for n, size in enumerate([(48, 64), (32, 64)])
    ]
    both.write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match="changes its size from 64x48 to 64x32; split it there"):
        restore_video(both, tmp_path / "out.mp4", Engine())
    fields = write(
        tmp_path / "i.mp4", codec="libx264", options={"x264-params": "interlaced=1:tff=1"}
    )
    with pytest.raises(VideoError, match=r"is flagged as interlaced.*deinterlace"):
        restore_video(fields, tmp_path / "out.mp4", Engine())
    assert not (tmp_path / "out.mp4").exists()


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    write(tmp_path / "in.mp4", codec="libx264")
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "in.mp4").read_bytes()[:2000])
    # A playlist could name any file of this machine.
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nin.mp4\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile in.mp4\n")
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for name, said in {
        "picture.png": "cannot be read as a video",
        "page.mp4": "cannot be read as a video",
        "empty.mp4": "cannot be read as a video",
        "cut.mp4": "cannot be read as a video",
        "list.mp4": "cannot be read as a video",
        "list.ffconcat": "cannot be read as a video",
        "sound.mp4": r"holds no video, only audio \(aac\)",
        "missing.mp4": "no such file",
        ".": "is a folder, not a video",
    }.items():
        with pytest.raises(VideoError, match=said) as caught:
            restore_video(tmp_path / name, tmp_path / "out.mp4", Engine())
        assert "\n" not in str(caught.value)
        assert (caught.value.cure is Cure.PICTURES) == ("cannot be read" in said)
        assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(VideoError, match="64x48, more than 100 pixels a frame"):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", Engine(), max_pixels=100)


@pytest.mark.parametrize(
    ("target", "arguments", "error", "said"),
    [
        ("out.avi", {}, InputError, r"ends in one of \.mp4, "),
        ("no/out.mp4", {}, InputError, "No such folder"),
        ("out.mp4", {"codec": "x264"}, InputError, "'x264' is no video encoder"),
        ("out.mp4", {"codec": "aac"}, InputError, "'aac' is no video encoder"),
        ("out.mp4", {"crf": 64}, InputError, "crf is 64"),
        ("out.mkv", {"crf": 20, "codec": "ffv1"}, InputError, "ffv1 has no crf"),
        ("out.mp4", {"options": {"preset": "warp"}}, InputError, "libx264 refuses .*preset=warp"),
        ("out.mp4", {"options": {"nonsense": "1"}}, InputError, "libx264 knows no option nonsense"),
        ("out.mp4", {"codec": "prores_ks"}, VideoError, r"\.mp4 cannot hold prores_ks"),
        ("out.webm", {"codec": "libx264"}, VideoError, r"\.webm cannot hold libx264"),
    ],
)
def test_targets_and_encoders_that_cannot_be_are_refused(
    tmp_path: Path, target: str, arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    source = write(tmp_path / "in.mp4", codec="libx264")
    with pytest.raises(error, match=said):
        restore_video(source, tmp_path / target, Engine(), **arguments)
    assert leftovers(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_encoders_write_what_players_read(
    tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.mkv", size=(96, 128))
    restore_video(source, tmp_path / "out.mp4", Engine(), codec=codec)
    frames = read(tmp_path / "out.mp4")
    assert len(frames) == 6
    error = np.square(
        frames[3].to_ndarray(format="rgb24").astype(float)
        - read(source)[3].to_ndarray(format="rgb24")
    ).mean()
    assert 10 * np.log10(255**2 / error) > 38  # measured: 40 dB and more
    assert capfd.readouterr() == ("", "")


@settings(max_examples=25)
@given(
    height=st.integers(8, 40),  # FFV1 takes few smaller ones
    width=st.integers(8, 40),
    pixel_format=st.sampled_from(["yuv420p", "yuv422p10le", "bgr0", "gray", "yuva420p"]),
    gaps=st.lists(st.integers(1, 1000), min_size=1, max_size=4),
)
def test_any_size_and_any_times(
    tmp_path: Path, height: int, width: int, pixel_format: str, gaps: list[int]
) -> None:
    pts = np.cumsum([0, *gaps]).tolist()
    source = write(
        tmp_path / "in.mkv", pixel_format=pixel_format, size=(height, width), pts=pts,
        time_base=Fraction(1, 1000),
    )  # fmt: skip
    report = restore_video(source, tmp_path / "out.mkv", Engine(), codec="ffv1")
    frames = read(tmp_path / "out.mkv")
    assert report.frames == len(frames) == len(pts)
    assert [(f.width, f.height, f.format.name) for f in frames] == [
        (width, height, pixel_format)
    ] * len(pts)
    assert times(tmp_path / "out.mkv") == times(source)


def test_odd_sizes_for_encoders_that_take_even_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", size=(47, 65))
    with pytest.raises(VideoError, match="libx264 takes no yuv420p of 65x47, an odd size; name"):
        restore_video(source, tmp_path / "out.mp4", Engine())
    restore_video(source, tmp_path / "out.webm", Engine())
    assert (read(tmp_path / "out.webm")[0].width, read(tmp_path / "out.webm")[0].height) == (65, 47)
