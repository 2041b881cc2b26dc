"""Building and loading compiled OpenVINO models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import restorert as rr
from restorert.backends.openvino.build import build_openvino
from restorert.backends.openvino.module import compile_options, load_module
from restorert.engine import ShapeProfile, device
from restorert.engine.recipe import BuilderOptions
from restorert.engine.request import BuildRequest
from restorert.engine.sidecar import read_sidecar, sidecar_path
from restorert.errors import BuildError, EngineMismatchError, RunnerUnavailableError
from restorert.export import OnnxFile
from restorert.files import sha256_of

PROFILE = ShapeProfile.up_to((2, 3, 32, 48), 4)


def _request(onnx_path: Path) -> BuildRequest:
    return BuildRequest(OnnxFile(onnx_path, "", {}), "fp32", PROFILE, BuilderOptions())


@pytest.fixture(autouse=True)
def _openvino() -> None:
    pytest.importorskip("openvino")


@pytest.mark.parametrize("name", ["nonsense", "garbage", "missing"])
def test_what_cannot_be_built(tiny_onnx: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    model = onnx.load(tiny_onnx("fp32"))
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, tmp_path / "nonsense.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    target = tmp_path / "a.openvino"
    with pytest.raises(BuildError, match=r"^openvino could not build: .+") as caught:
        build_openvino(_request(tmp_path / f"{name}.onnx"), target)
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_unwritable_target(tiny_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^cannot write .*No such file"):
        build_openvino(_request(tiny_onnx("fp32")), tmp_path / "none/a")


def test_a_blob_that_is_none(tiny_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    """The sidecar vouches for a file that OpenVINO then refuses: still one line."""
    path = rr.build_engine_file(
        tiny_onnx("fp32"), tmp_path / "a.openvino", profile=PROFILE, runner="openvino"
    )
    before = read_sidecar(path)
    for content in (b"garbage" * 100, b""):
        path.write_bytes(content)
        text = sidecar_path(path).read_text()
        now = read_sidecar(path)
        text = text.replace(now.engine_sha256, sha256_of(path))
        text = text.replace(
            f'"engine_bytes": {now.engine_bytes}', f'"engine_bytes": {len(content)}'
        )
        sidecar_path(path).write_text(text)
        with pytest.raises(EngineMismatchError, match="openvino cannot load") as caught:
            rr.load_engine(path)
        assert "\n" not in str(caught.value)
        assert before.rebuild in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "precision", "hint"),
    [
        ("avx2", "fp32", "f32"),
        ("avx2", "fp16", "f32"),
        ("avx2+avx512f+avx512_bf16", "fp32", "f32"),
        ("avx2+avx512f+avx512_bf16", "fp16", "bf16"),
        ("avx2+avx512f+avx512_bf16", "bf16", "bf16"),
        ("avx512_bf16+amx_bf16+amx_fp16", "fp16", "f16"),
        ("avx512_bf16+amx_bf16+amx_fp16", "bf16", "bf16"),
    ],
)
def test_precision_hint(
    monkeypatch: pytest.MonkeyPatch, capability: str, precision: str, hint: str
) -> None:
    monkeypatch.setattr(device, "cpu", lambda: device.Device("cpu", "abacus", capability))
    assert compile_options(precision)["INFERENCE_PRECISION_HINT"] == hint


def test_nothing_is_reported() -> None:
    """Importing openvino sends an event to Intel where its telemetry is installed."""
    code = (
        "import sys, threading; from restorert.backends.openvino import module as b\n"
        "assert b.load_module().convert_model\n"
        "assert not any('openvino_telemetry' in name for name in sys.modules)\n"
        "assert threading.active_count() == 1"
    )
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True, timeout=60
    )


def test_missing_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RunnerUnavailableError, match="install it with: pip install openvino"):
        load_module.__wrapped__()
