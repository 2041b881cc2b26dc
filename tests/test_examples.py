"""The examples, run as their first lines say, on small pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow  # each test starts a process, and most of them export a network

ROOT = Path(__file__).parents[1]


def _run(example: str, *arguments: Path) -> str:
    """What it prints."""
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64)


@pytest.fixture
def clean() -> np.ndarray:
    """A smooth picture of 40 x 56."""
    y, x = np.mgrid[:40, :56]
    return np.stack([128 + 60 * np.sin(x / 9), 128 + 60 * np.cos(y / 7), x + y + 60], axis=-1)


@pytest.fixture
def noisy(clean: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "noisy.png"
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    Image.fromarray((clean + noise).clip(0, 255).round().astype(np.uint8)).save(path)
    return path


def _gain(clean: np.ndarray, before: Path, after: Path) -> float:
    """By how many dB ``after`` is nearer to ``clean`` than ``before``."""
    errors = [float(np.mean((_pixels(path) - clean) ** 2)) for path in (before, after)]
    return 10 * float(np.log10(errors[0] / errors[1]))


def test_picture(clean: np.ndarray, noisy: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored.png"
    assert "hinet-tiny on " in _run("picture.py", noisy, target)
    assert _gain(clean, noisy, target) > 12  # measured: 16.4


def test_folder(clean: np.ndarray, noisy: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "photos", tmp_path / "restored"
    folder.mkdir()
    noisy.rename(folder / "a.png")
    Image.open(folder / "a.png").rotate(90, expand=True).save(folder / "b.png")
    assert "2 restored" in _run("folder.py", folder, target)
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png"]
    assert _gain(clean, folder / "a.png", target / "a.png") > 12


def test_video(clean: np.ndarray, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 56, 40, "bgr0"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(clean.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "3 frames restored; left out: nothing" in _run("video.py", source, target)
    with av.open(str(target)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(40, 56, 3)] * 3


def test_own_network(noisy: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    target, exported = tmp_path / "sharp.png", tmp_path / "own.onnx"
    assert _run("own_network.py", noisy, target, exported).startswith("own on ")
    x = _pixels(noisy)
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)), mode="edge")
    blurred = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (0, 1)).mean((-2, -1))
    expected = x + 0.5 * (x - blurred)
    # measured worst: 0.5, which is the rounding, and 1.3e-7
    assert np.abs(_pixels(target) - expected.clip(0, 255)).max() < 0.51
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": (x / 255).astype(np.float32).transpose(2, 0, 1)[None]})
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected / 255, rtol=0, atol=4e-7)
