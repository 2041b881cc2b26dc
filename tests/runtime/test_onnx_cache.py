"""Exported files in the cache: written once, and again where anything about them has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import restorert as rr
from restorert import backends
from restorert.backends import Backend
from restorert.engine import EngineCache
from restorert.engine.request import BuildRequest, Built
from restorert.export import OnnxFile, onnx_file
from restorert.runtime import onnx_cache
from restorert.runtime.onnx_cache import cached_onnx


def test_a_damaged_file_is_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = []

    def export(network: Any, path: Path, **arguments: Any) -> None:
        exports.append(path)
        rr.export_onnx(network, path, **arguments)

    monkeypatch.setattr(onnx_cache, "export_onnx", export)
    net = rr.create_network("hinet", width=2, depth=2)

    def cached() -> OnnxFile:
        return cached_onnx(
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
    monkeypatch.setattr(onnx_cache, "sha256_of", counted("hash", onnx_cache.sha256_of))
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
