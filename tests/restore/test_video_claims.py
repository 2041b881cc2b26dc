"""What is said of a video, when its frames are shown, and what else of a file is kept."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from restorert.errors import Cure, InputError, VideoError
from restorert.restore import restore_video
from restorert.restore.video import decode
from restorert.restore.video.ahead import is_cut_short

av = pytest.importorskip("av", reason="PyAV needs Python 3.11: pip install restorert[video]")

SPEC = SimpleNamespace(name="fake", in_channels=3, out_channels=3, tile=None, rounding="nearest")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")


class Engine:
    """Changes nothing and counts its calls."""

    def __init__(self) -> None:
        self.spec: Any = SPEC
        self.calls = 0

    def __call__(self, frames: Any) -> Any:
        self.calls += 1
        return frames


def picture(index: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Slopes that move to the right."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 90 * np.sin((x - 3 * index) / (7 + c) + y / 9) for c in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def make(
    path: Path,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    seconds: Sequence[float] | None = None,
    sound: tuple[float, float] | None = None,
    sound_codec: str = "aac",
    subtitles: Sequence[tuple[float, float]] = (),
    subtitle_codec: str = "subrip",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    prepare: Callable[[Any, Any], None] | None = None,
    frames: Callable[[int], Any] = picture,
) -> Path:
    """A video with frames at ``seconds``, sound from and to, subtitles from and to, in seconds."""
    seconds = [n / 24 for n in range(24)] if seconds is None else seconds
    base = Fraction(1, 12000)
    with av.open(str(path), "w", container_options=container or {}) as output:
        video = output.add_stream(codec, rate=24, options=options or {})
        video.width, video.height, video.pix_fmt = 64, 48, pixel_format
        video.codec_context.time_base = base
        audio = text = None
        if sound:
            audio = output.add_stream(sound_codec, rate=48000)
            audio.codec_context.layout = "mono"
        if subtitles:
            text = output.add_mux_stream(subtitle_codec)
        if prepare:
            prepare(output, video)
        output.start_encoding()
        packets = []
        for index, at in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(frames(index), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = round(at / base), base
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound and audio:
            step = audio.codec_context.frame_size or 1024
            tone = np.sin(np.arange(round((sound[1] - sound[0]) * 48000)) / 20).astype(np.float32)
            for at in range(0, tone.size, step):
                part = tone[None, at : at + step] * 0.3
                packed = audio.codec_context.format.name
                part = (part * 32767).astype(np.int16) if packed.startswith("s16") else part
                frame = av.AudioFrame.from_ndarray(part, format=packed, layout="mono")
                frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                frame.pts = round(sound[0] * 48000) + at
                packets += audio.encode(frame)
            packets += audio.encode(None)
        for start, end in subtitles:
            packet = av.Packet(b"Hello")
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round((end - start) * 1000)
            packets.append(packet)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            output.mux(packet)
    return path


def starts(path: Path) -> list[float]:
    """When each stream starts, by its first packet that is played."""
    found: dict[int, list[float]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is not None and not packet.is_discard:
                found.setdefault(packet.stream.index, []).append(packet.pts * packet.time_base)
    return [float(min(found[index])) for index in sorted(found)]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


# Frames of a screen capture: bursts, and seconds of nothing.
CAPTURE = [0, 1 / 60, 2 / 60, 3 / 60, 4, 4 + 1 / 60, 9.5, 11.5]


@pytest.mark.parametrize(
    ("suffix", "more"),
    [
        *((suffix, {}) for suffix in (".mkv", ".mp4", ".mov", ".webm")),
        *((suffix, {"sound": (0, 20)}) for suffix in (".mkv", ".mp4", ".mov")),
        (".webm", {"sound": (0, 20), "sound_codec": "libopus"}),
        (".mkv", {"subtitles": [(0, 1), (0, 2), (15, 19)]}),
    ],
)
def test_a_whole_file_is_never_called_damaged(
    tmp_path: Path, suffix: str, more: dict[str, Any]
) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    source = make(tmp_path / f"in{suffix}", codec=codec, seconds=CAPTURE, **more)
    target = tmp_path / f"out{suffix}"
    report = restore_video(source, target, Engine())
    assert not report.incomplete
    assert report.frames == len(CAPTURE)
    # measured: 0.5 ms in Matroska, whose ticks are 1 ms
    assert np.allclose(times(target), CAPTURE, atol=0.0011)


def test_files_that_end_too_early_are_told_from_those_that_state_no_end(tmp_path: Path) -> None:
    whole = {
        "a.mkv": make(tmp_path / "a.mkv"),
        "b.mp4": make(tmp_path / "b.mp4", container={"movflags": "+faststart"}),
        "c.mkv": make(tmp_path / "c.mkv", container={"live": "1"}),
        "d.mp4": make(tmp_path / "d.mp4", container={"movflags": "+frag_keyframe+empty_moov"}),
        "e.mov": make(tmp_path / "e.mov"),
        "f.ts": make(tmp_path / "f.ts"),
        "g.webm": make(tmp_path / "g.webm", codec="libvpx-vp9"),
    }
    for name, path in whole.items():
        assert not is_cut_short(path), name
        longer = tmp_path / f"longer {name}"
        longer.write_bytes(path.read_bytes() + b"\0" * 40)
        assert not is_cut_short(longer), name
        shorter = tmp_path / f"shorter {name}"
        shorter.write_bytes(path.read_bytes()[:-100])
        assert is_cut_short(shorter) == (name[0] not in "cf"), name
    report = restore_video(tmp_path / "shorter b.mp4", tmp_path / "out.mkv", Engine())
    assert report.cut_short
    assert report.incomplete


@pytest.mark.parametrize(
    "options",
    [
        {"g": "12", "bf": "0"},
        {"g": "8", "bf": "2", "x264-params": "open-gop=1:b-adapt=0:scenecut=0:log-level=0"},
    ],
    ids=["closed", "open"],
)
def test_a_recording_that_begins_between_key_frames_is_not_damaged(
    tmp_path: Path, options: dict[str, str]
) -> None:
    source = make(tmp_path / "in.ts", options=options, sound=(0, 1))
    with av.open(str(source)) as container, av.open(str(tmp_path / "cut.ts"), "w") as output:
        copies = {s.index: output.add_stream_from_template(s) for s in container.streams}
        seen = 0
        for packet in container.demux():
            if packet.dts is None:
                continue
            seen += packet.stream.type == "video"
            if seen > 5:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    report = restore_video(tmp_path / "cut.ts", tmp_path / "out.mkv", Engine())
    assert not report.incomplete
    assert report.frames >= 12


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("late", [0, 0.3, -0.3], ids=["together", "sound later", "picture later"])
def test_the_start_of_the_file_is_its_start(tmp_path: Path, suffix: str, late: float) -> None:
    """A capture that starts at 10,001 s is not 2 h 46 min longer than it is."""
    at = 10001
    source = make(
        tmp_path / "in.ts",
        seconds=[at + max(-late, 0) + n / 24 for n in range(24)],
        sound=(at + max(late, 0), at + 1.5), sound_codec="mp2",
    )  # fmt: skip
    target = tmp_path / f"out{suffix}"
    assert restore_video(source, target, Engine()).frames == 24
    before, after = starts(source), starts(target)
    assert min(before) > at - 1
    assert abs(min(after)) < 0.001
    # measured: 0.5 ms in Matroska
    assert abs((after[1] - after[0]) - (before[1] - before[0])) < 0.001
    with av.open(str(target)) as container:
        assert container.duration < 3_000_000


def test_chapters_and_subtitles_move_with_the_start(tmp_path: Path) -> None:
    def prepare(output: Any, _: Any) -> None:
        ticks = Fraction(1, 1000)
        entries = [(1, 4000, 5500), (2, 5500, 6000)]
        output.set_chapters(
            [{"id": i, "start": a, "end": b, "time_base": ticks, "metadata": {"title": str(i)}}
             for i, a, b in entries]
        )  # fmt: skip

    source = make(
        tmp_path / "in.mkv", seconds=[5 + n / 24 for n in range(24)], prepare=prepare,
        subtitles=[(5.25, 5.5), (5.25, 5.75)],
    )  # fmt: skip
    restore_video(source, tmp_path / "out.mkv", Engine())
    with av.open(str(tmp_path / "out.mkv")) as container:
        chapters = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
            for c in container.chapters()
        ]
        packets = [p for p in container.demux(container.streams.subtitles[0]) if p.size]
    assert chapters == [(0.0, 0.5), (0.5, 1.0)]
    assert [float(p.pts * p.time_base) for p in packets] == [0.25, 0.25]
    assert [float(p.duration * p.time_base) for p in packets] == [0.25, 0.5]
    assert times(tmp_path / "out.mkv")[0] == 0


def test_recordings_that_were_joined_go_on(tmp_path: Path) -> None:
    one = make(tmp_path / "1.ts", options={"bf": "0"}, sound=(0, 1), sound_codec="mp2")
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() * 2)
    report = restore_video(both, tmp_path / "out.mkv", Engine())
    assert report.frames == 48
    found = times(tmp_path / "out.mkv")
    # measured: 42 ms, one frame
    assert np.allclose(np.diff(found), 1 / 24, atol=0.002)
    with av.open(str(tmp_path / "out.mkv")) as container:
        stream = container.streams.audio[0]
        heard = [float(p.pts * p.time_base) for p in container.demux(stream) if p.size]
    assert np.all(np.diff(heard) > 0.02)
    assert 1.9 < heard[-1] < 2.1


FONT = b"\0\1\0\0" + b"font" * 8


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_cut_at_an_open_group_is_not_damaged(tmp_path: Path, codec: str) -> None:
    """Frames that lean on those before the cut cannot be shown by anyone."""
    parameters = "open-gop=1:keyint=8:min-keyint=8:bframes=2:b-adapt=0:scenecut=0"
    quiet = ":log-level=error" if codec == "libx265" else ":log-level=0"
    options = {f"{codec.removeprefix('lib')}-params": parameters + quiet}
    whole = make(tmp_path / "whole.mkv", codec=codec, options=options)
    cut = tmp_path / "cut.mkv"
    with av.open(str(whole)) as container, av.open(str(cut), "w") as output:
        copy = output.add_stream_from_template(container.streams.video[0], opaque=True)
        keys = 0
        for packet in container.demux(video=0):
            keys += packet.is_keyframe
            if keys >= 2 and packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    report = restore_video(cut, tmp_path / "out.mkv", Engine())
    assert not report.incomplete
    assert 14 <= report.frames < 24


def test_a_damaged_first_group_is_damage(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", options={"g": "8", "bf": "0"})
    with av.open(str(source)) as container:
        packets = [p for p in container.demux() if p.dts is not None]
        data, first = bytearray(source.read_bytes()), bytes(packets[0])
    at = data.index(first[8:])
    data[at : at + len(first) - 8] = bytes(len(first) - 8)
    source.write_bytes(data)
    report = restore_video(source, tmp_path / "out.mkv", Engine())
    assert report.damaged
    assert report.incomplete


def test_dispositions_and_fonts_are_kept(tmp_path: Path) -> None:
    flags = av.stream.Disposition

    def prepare(output: Any, _: Any) -> None:
        for disposition in (flags.default, flags.comment, flags.hearing_impaired):
            copy = output.add_stream("flac", rate=48000)
            copy.codec_context.layout, copy.disposition = "mono", disposition
        output.add_attachment("a.ttf", "application/x-truetype-font", FONT)

    source = make(tmp_path / "in.mkv", prepare=prepare, subtitles=[(0, 1)])
    with av.open(str(source)) as container:
        given = [(s.type, s.disposition) for s in container.streams]
    assert {flags.default, flags.comment} <= {d for _, d in given}
    report = restore_video(source, tmp_path / "out.mkv", Engine())
    assert report.dropped == ()
    with av.open(str(tmp_path / "out.mkv")) as container:
        # Attachments come last, as they are written before all packets.
        assert sorted((s.type, s.disposition) for s in container.streams) == sorted(given)
        (font,) = (s for s in container.streams if s.type == "attachment")
        assert (font.name, font.mimetype) == ("a.ttf", "application/x-truetype-font")
        assert font.data == FONT


def test_fonts_that_the_target_cannot_hold_are_named(tmp_path: Path) -> None:
    def prepare(output: Any, _: Any) -> None:
        output.add_attachment("a.ttf", "application/x-truetype-font", FONT)

    source = make(tmp_path / "in.mkv", prepare=prepare)
    assert restore_video(source, tmp_path / "out.mp4", Engine()).dropped == ("attachment a.ttf",)


MASTERING = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


def light_of(path: Path) -> dict[str, Any]:
    """HDR10's side data of the first frame, rationals as numbers."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        side = {data.type.name: bytes(data) for data in frame.side_data}
    found: dict[str, Any] = {}
    if data := side.get("MASTERING_DISPLAY_METADATA"):
        numbers = np.frombuffer(data, "i4")
        found["mastering"] = (numbers[0:20:2] / numbers[1:20:2]).round(4).tolist()
    if data := side.get("CONTENT_LIGHT_LEVEL"):
        found["light"] = np.frombuffer(data, "u4").tolist()
    return found


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libsvtav1", "ffv1"])
def test_mastering_metadata_is_kept_or_named(tmp_path: Path, codec: str) -> None:
    parameters = f"log-level=error:bframes=0:hdr10=1:{MASTERING}:max-cll=1000,400"
    source = make(
        tmp_path / "in.mkv", codec="libx265", pixel_format="yuv420p10le",
        seconds=[n / 24 for n in range(8)], options={"x265-params": parameters},
    )  # fmt: skip
    given = light_of(source)
    assert given["light"] == [1000, 400]
    assert given["mastering"][:2] == [0.68, 0.32]
    assert given["mastering"][8:] == [0.005, 1000]
    report = restore_video(source, tmp_path / "out.mkv", Engine(), codec=codec)
    if codec == "ffv1":
        assert report.dropped == ("HDR10 mastering metadata",)
        return
    assert report.dropped == ()
    found = light_of(tmp_path / "out.mkv")
    assert found["light"] == given["light"]
    # measured: AV1 rounds the lowest luminance to 1/16384 and chromaticity to 1/65536
    assert np.allclose(found["mastering"], given["mastering"], atol=1e-4)


def opaque(index: int) -> NDArray[np.uint8]:
    return np.concatenate([picture(index), np.full((48, 64, 1), 255, np.uint8)], axis=2)


def make_rgba(path: Path, alphas: Sequence[int]) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        for index, alpha in enumerate(alphas):
            pixels = opaque(index)
            pixels[5:9, :, 3] = alpha
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="bgra")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_an_opaque_alpha_is_no_transparency(tmp_path: Path) -> None:
    source = make_rgba(tmp_path / "in.mkv", [255] * 6)
    report = restore_video(source, tmp_path / "out.mp4", Engine())
    assert report.dropped == ()
    later = make_rgba(tmp_path / "later.mkv", [255, 255, 0, 255])
    report = restore_video(later, tmp_path / "out.mp4", Engine())
    assert report.dropped == ("transparency, from frame 3 on",)
    seen = make_rgba(tmp_path / "seen.mkv", [0, 255])
    engine = Engine()
    with pytest.raises(VideoError, match="libx264 cannot hold the transparency of bgra; write"):
        restore_video(seen, tmp_path / "other.mp4", engine)
    assert engine.calls == 0


@pytest.mark.parametrize("kind", [b"xxxx", b"txts"])
def test_streams_of_kinds_that_pyav_does_not_know_are_left_out(tmp_path: Path, kind: bytes) -> None:
    source = make(tmp_path / "in.avi", codec="mpeg4", sound=(0, 1), sound_codec="pcm_s16le")
    data = source.read_bytes()
    source.write_bytes(data.replace(b"auds", kind, 1))
    report = restore_video(source, tmp_path / "out.mkv", Engine())
    assert report.frames == 24
    assert len(report.dropped) == 1
    assert report.dropped[0].endswith("stream 1")


@pytest.mark.parametrize(
    ("subtitle", "source", "target", "others"),
    [
        ("mov_text", "in.mp4", "out.mkv", "(mov|mp4)"),
        ("subrip", "in.mkv", "out.mp4", "mkv"),
        ("subrip", "in.mkv", "out.webm", "mkv"),
    ],
)
def test_advice_names_what_can_hold_it(
    tmp_path: Path, subtitle: str, source: str, target: str, others: str
) -> None:
    codec = "libx264"
    if subtitle == "mov_text":
        if shutil.which("ffmpeg") is None:
            pytest.skip("needs the ffmpeg program")
        made = make(tmp_path / "a.mkv", subtitles=[(0, 1)])
        command = ["ffmpeg", "-v", "error", "-i", made, "-c:v", "copy", "-c:s", "mov_text"]
        subprocess.run([*map(str, command), str(tmp_path / source)], check=True)
    else:
        make(tmp_path / source, codec=codec, subtitles=[(0, 1)])
    engine = Engine()
    suffix = target.removeprefix("out")
    advice = rf"\{suffix} cannot hold its subtitle .*; write out\.{others}, which can"
    with pytest.raises(VideoError, match=advice):
        restore_video(tmp_path / source, tmp_path / target, engine)
    assert engine.calls == 0
    assert not (tmp_path / target).exists()


def test_advice_never_names_the_target_that_was_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", pixel_format="yuv444p10le")
    with pytest.raises(VideoError, match="cannot hold rawvideo") as caught:
        restore_video(source, tmp_path / "out.mkv", Engine(), codec="rawvideo")
    assert "out.mkv" not in str(caught.value)


FIELDS = {"x264-params": "interlaced=1:tff=1:log-level=0"}


def combed(index: int) -> NDArray[np.uint8]:
    """A frame of two fields, half a frame apart in time."""
    woven = picture(2 * index)
    woven[1::2] = picture(2 * index + 1)[1::2]
    return woven


def test_interlaced_frames_are_refused_taken_or_mended(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", options=FIELDS, frames=combed, sound=(0, 1))
    engine = Engine()
    with pytest.raises(VideoError, match="is flagged as interlaced, which") as caught:
        restore_video(source, tmp_path / "out.mp4", engine)
    assert caught.value.cure is Cure.FIELDS
    assert engine.calls == 0
    errors = {}
    for fields in ("progressive", "deinterlace"):
        target = tmp_path / f"{fields}.mp4"
        report = restore_video(source, target, Engine(), fields=fields, crf=1)
        assert report.frames == 24
        assert report.deinterlaced is None
        assert np.allclose(times(target), times(source))
        with av.open(str(target)) as container:
            frames = list(container.decode(video=0))
            assert not any(f.interlaced_frame for f in frames)
            found = frames[12].to_ndarray(format="rgb24").astype(float)
        errors[fields] = min(np.abs(found - picture(at)).mean() for at in (24, 25))
    # measured: 12.6 levels with the combs, 6.6 without
    assert errors["deinterlace"] < errors["progressive"] * 0.7


def test_frames_that_are_not_flagged_pass_the_deinterlacer(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", seconds=CAPTURE)
    for fields in ("refuse", "deinterlace"):
        restore_video(source, tmp_path / f"{fields}.mkv", Engine(), codec="ffv1", fields=fields)
    frames = []
    for fields in ("refuse", "deinterlace"):
        with av.open(str(tmp_path / f"{fields}.mkv")) as container:
            frames.append([(f.time, f.to_ndarray()) for f in container.decode(video=0)])
    assert len(frames[0]) == len(CAPTURE)
    for (at, pixels), (again, same) in zip(*frames, strict=True):
        assert at == again
        assert np.array_equal(pixels, same)


def joined(tmp_path: Path) -> Path:
    """Progressive frames, then interlaced ones."""
    parts = [
        make(tmp_path / "1.h264", options={"bf": "0"}),
        make(tmp_path / "2.h264", options={**FIELDS, "bf": "0"}, frames=combed),
    ]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    return both


def test_what_comes_later_is_found_before_the_work(tmp_path: Path) -> None:
    engine = Engine()
    with pytest.raises(VideoError, match="is flagged as interlaced"):
        restore_video(joined(tmp_path), tmp_path / "out.mkv", engine)
    assert engine.calls == 0


def test_what_is_found_late_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "frames_ahead", lambda container, index: iter(()))
    report = restore_video(joined(tmp_path), tmp_path / "out.mkv", Engine())
    assert report.frames == 48
    assert report.deinterlaced is not None
    assert not report.incomplete
    assert len(times(tmp_path / "out.mkv")) == 48
    with av.open(str(tmp_path / "small.h264"), "w") as output:
        stream = output.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    other = tmp_path / "other.h264"
    other.write_bytes((tmp_path / "1.h264").read_bytes() + (tmp_path / "small.h264").read_bytes())
    report = restore_video(other, tmp_path / "out.mkv", Engine())
    assert report.frames == 24
    assert report.stopped == "changes its size from 64x48 to 32x32"
    assert report.incomplete


def test_few_frames_by_libx265(tmp_path: Path) -> None:
    """For two or three frames libx265 makes up times that no container takes."""
    for count in (1, 2, 3):
        source = make(tmp_path / f"{count}.mp4", seconds=[n / 24 for n in range(count)])
        for attempt in range(4):
            target = tmp_path / f"{count} {attempt}.mkv"
            restore_video(source, target, Engine(), codec="libx265")
            assert len(times(target)) == count
            assert times(target)[0] == 0


def sound_of(path: Path) -> bytes:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a", "-f", "s16le", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def shown(path: Path) -> list[float]:
    """When the frames are shown, by the ffmpeg program, from the first stream's start on."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=pts_time"]
    told = subprocess.run([*command, "-of", "csv=p=0", str(path)], capture_output=True, check=True)
    return [float(line.strip(",")) for line in told.stdout.decode().split()]


@needs_ffmpeg
@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov"])
@pytest.mark.parametrize("cut", [0.3, 0.0])
def test_edit_lists_and_priming_samples_are_honoured(
    tmp_path: Path, target: str, cut: float
) -> None:
    whole = make(tmp_path / "whole.mp4", sound=(0, 1), options={"g": "48"})
    source = tmp_path / "in.mp4"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-ss",
        str(cut),
        "-i",
        str(whole),
        "-c",
        "copy",
        str(source),
    ]
    subprocess.run(command, check=True)
    result = tmp_path / target
    report = restore_video(source, result, Engine())
    assert not report.incomplete
    before, after = shown(source), shown(result)
    assert report.frames == len(before) == len(after)
    # measured: 0.5 ms in Matroska
    assert np.allclose(np.subtract(after, after[0]), np.subtract(before, before[0]), atol=0.001)
    given, found = (np.frombuffer(sound_of(p), np.int16).astype(int) for p in (source, result))
    assert abs(given.size - found.size) <= 2048, (given.size, found.size)


@needs_ffmpeg
@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
def test_the_delay_of_opus_is_kept(tmp_path: Path, target: str) -> None:
    source = make(tmp_path / "in.mkv", sound=(0, 1), sound_codec="libopus")
    restore_video(source, tmp_path / target, Engine())
    given, found = (np.frombuffer(sound_of(p), np.int16) for p in (source, tmp_path / target))
    assert given.size >= 48000
    # Matroska's ticks are 1 ms, and MP4's list skips by those; measured: 24 samples
    shift = (
        0
        if target == "out.mkv"
        else next(at for at in range(48) if np.array_equal(given[at : at + 4000], found[:4000]))
    )
    assert np.array_equal(given[shift:], found[: given.size - shift])
    before, after = starts(source), starts(tmp_path / target)
    assert abs((after[1] - after[0]) - (before[1] - before[0])) < 0.001


def test_an_unknown_treatment_of_fields_is_an_error(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4")
    with pytest.raises(InputError, match="fields is 'weave'"):
        restore_video(source, tmp_path / "out.mp4", Engine(), fields="weave")  # type: ignore[arg-type]
