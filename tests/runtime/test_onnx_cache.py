"""ONNX files in the cache: what makes one stale, and where a quantised one lies."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import restorert as rr
from restorert import backends
from restorert.backends import Backend
from restorert.engine import EngineCache
from restorert.engine.request import BuildRequest, Built
from restorert.export import OnnxFile, onnx_file
from restorert.export.onnx_file import set_metadata
from restorert.quantize import CalibrationCache, Patches
from restorert.runtime import onnx_cache as module

Network = rr.networks.RestorationNetwork


@pytest.mark.slow
def test_a_damaged_file_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = []

    def export(network: Any, path: Path, **arguments: Any) -> None:
        exports.append(path)
        rr.export_onnx(network, path, **arguments)

    monkeypatch.setattr(module, "export_onnx", export)
    net = rr.create_network("hinet", width=2, depth=2)

    def cached() -> OnnxFile:
        return module.cached_onnx(
            net, "fp32", EngineCache(tmp_path), weights_sha256="weights", runner="openvino"
        )

    first = cached()
    assert cached() == first == OnnxFile.read(first.path)
    assert len(exports) == 1
    content = first.path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], b""):
        first.path.write_bytes(damaged)
        assert cached() == first
        assert first.path.read_bytes() == content
    assert len(exports) == 4
    record = first.path.with_name(f"{first.path.name}.json")
    for damaged in (b"", b"[]", b'{"sha256": 3}'):
        record.write_bytes(damaged)
        assert cached() == first


def test_all_code_that_writes_a_file_is_in_the_fingerprint() -> None:
    script = (
        "import sys, restorert.quantize.quantize, restorert.export.onnx_export\n"
        "for name, module in sys.modules.items():\n"
        "    if name.split('.')[0] == 'restorert': print(module.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {Path(line) for line in done.stdout.splitlines()}
    assert len(loaded) > 40
    assert not {path for path in loaded if path.suffix == ".py"} - set(module.exporter_sources())


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call of `quantize_network`, which writes an empty model."""
    calls: list[dict[str, Any]] = []

    def write(network: Network, path: Path, **arguments: Any) -> None:
        calls.append(arguments)
        model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
        set_metadata(model, {"network": network.spec.name})
        onnx.save(model, path)

    monkeypatch.setattr(module, "quantize_network", write)
    return calls


def test_another_calibration_is_another_file(
    network: Network, written: list[dict[str, Any]], tmp_path: Path
) -> None:
    own = CalibrationCache(
        "hinet", "ab", "mse", 1, {}, {"x": 0.5}, corrections={"a": np.ones(2, np.float32)}
    )
    cache = EngineCache(tmp_path)
    paths = [
        module.cached_onnx(
            network, "int8", cache, weights_sha256="ab", runner="openvino", calibration=calibration
        ).path
        for calibration in (
            own,
            dataclasses.replace(own),
            dataclasses.replace(own, scales={"x": 0.25}),
            dataclasses.replace(own, keep={"a": "asked for"}),
            dataclasses.replace(own, corrections={"a": np.zeros(2, np.float32)}),
        )
    ]
    assert paths[0] == paths[1]
    assert len(set(paths)) == len(written) == 4


def test_where_a_quantised_file_lies(network: Network, tmp_path: Path) -> None:
    x = np.zeros((1, 3, 4, 4), np.float32)
    own = Patches((x,), (None,), ("given",), {"a.png": "ab"})
    other = rr.create_network("hinet", width=8, depth=3, seed=1)
    calls: list[tuple[Network, Patches, dict[str, Any]]] = [
        (network, own, {}),
        (network, dataclasses.replace(own, pictures={"renamed.png": "ab"}), {}),
        (network, dataclasses.replace(own, pictures={"a.png": "cd"}), {}),
        (network, dataclasses.replace(own, inputs=(x, x)), {}),
        (network, dataclasses.replace(own, conditions=("sigma 25",)), {}),
        (network, own, {"keep_fp16": ["a"]}),
        (network, own, {"runner": "openvino"}),
        (other, own, {}),
    ]
    paths = [
        module.calibrated_path(net, patches, cache=EngineCache(tmp_path / "new"), **arguments)
        for net, patches, arguments in calls
    ]
    assert paths[0] == paths[1]
    assert len(set(paths)) == len(calls) - 1
    assert {path.parent for path in paths} == {tmp_path / "new"}
    assert paths[0].parent.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["network", "path"])
def test_a_build_reads_its_onnx_file_once(
    network: rr.networks.RestorationNetwork,
    tiny_onnx: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """As a whole by us, that is; the builder's own parser comes on top of it."""
    counts = {"hash": 0, "parse": 0}

    def counted(what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            counts[what] += 1
            return work(*arguments, **more)

        return call

    monkeypatch.setattr(onnx_file, "sha256_of", counted("hash", onnx_file.sha256_of))
    monkeypatch.setattr(module, "sha256_of", counted("hash", module.sha256_of))
    monkeypatch.setattr(onnx_file, "_load", counted("parse", onnx_file._load))
    monkeypatch.setattr(backends, "BACKENDS", [Copies()])
    given = network if form == "network" else tiny_onnx("fp32")
    for _ in range(2):
        counts.update(hash=0, parse=0)
        rr.build_engine_file(given, shape=(1, 3, 16, 16), cache=EngineCache(tmp_path / "cache"))
        assert counts["hash"] == 1
        assert counts["parse"] <= 1


class Copies(Backend):
    """Takes the ONNX file for the engine."""

    name = "copies"

    def version(self) -> str:
        return "1"

    def build(self, request: BuildRequest, target: Path, progress: Any) -> Built:
        target.write_bytes(request.onnx.path.read_bytes())
        return Built("fp32")
