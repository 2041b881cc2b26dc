"""Exported files in the cache: written once, and again where anything about them has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import restorert as rr
from restorert.engine import EngineCache
from restorert.export import OnnxFile
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
