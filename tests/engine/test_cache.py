"""The cache: one build for one set of facts, whatever else happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import restorert as rr
from restorert import backends
from restorert.backends import Backend, base
from restorert.engine import EngineCache, ShapeProfile
from restorert.engine.cache import cache_folder, cache_key
from restorert.engine.device import Device
from restorert.engine.recipe import BuilderOptions
from restorert.engine.request import BuildRequest, Built
from restorert.engine.sidecar import sidecar_path
from restorert.errors import BuildError, EngineMismatchError, InputError
from restorert.export import OnnxFile
from restorert.runtime import build as building


class FakeBackend(Backend):
    """Writes a few bytes and counts how often."""

    suffix = ".fake"

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.builds = 0
        self.at_version = "1.0"
        self.on = Device("cpu", "abacus", "wood", "1")

    def version(self) -> str:
        return self.at_version

    def device(self) -> Device:
        return self.on

    def onnx_precision(self, precision: str) -> str:
        return "fp32"

    def build(self, request: BuildRequest, target: Path, progress: Any) -> Built:
        self.builds += 1
        target.write_bytes(b"engine")
        return Built("fp32", plugins=self.uses_plugins)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    in_memory = [backend for backend in backends.BACKENDS if backend.takes == "network"]
    monkeypatch.setattr(backends, "BACKENDS", [fake, *in_memory])
    return fake


@pytest.fixture
def build(
    backend: FakeBackend, tiny_onnx: Callable[[str], Path], tmp_path: Path
) -> Callable[..., Path]:
    def build(network: Any = None, **arguments: Any) -> Path:
        arguments = {"shape": (1, 3, 16, 16), "runner": "auto"} | arguments
        return rr.build_engine_file(
            network or tiny_onnx("fp32"), cache=EngineCache(tmp_path / "cache"), **arguments
        )

    return build


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.slow
def test_second_build_is_a_hit(build: Callable[..., Path], backend: FakeBackend) -> None:
    first = build()
    assert build() == first
    assert backend.builds == 1
    assert _visible(first.parent) == [first.name, sidecar_path(first).name]


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "fp16"},
        {"shape": (2, 3, 16, 16)},
        {"shape": None, "profile": ShapeProfile.fixed((1, 3, 16, 16))},
        {"options": BuilderOptions(workspace_mib=5)},
        {"options": BuilderOptions(optimization_level=5)},
        {"options": BuilderOptions(compute_capabilities=("8.9",))},
    ],
    ids=str,
)
def test_each_argument_is_in_the_key(
    build: Callable[..., Path], backend: FakeBackend, change: dict[str, Any]
) -> None:
    assert build(**change) != build()
    assert backend.builds == 2


@pytest.mark.parametrize(
    "change",
    [
        {"at_version": "1.1"},
        {"name": "other"},
        {"on": Device("cpu", "slide rule", "wood", "1")},
        {"on": Device("cpu", "abacus", "steel", "1")},
        {"on": Device("cpu", "abacus", "wood", "2")},
    ],
    ids=str,
)
def test_each_fact_of_the_runner_is_in_the_key(
    build: Callable[..., Path], backend: FakeBackend, change: dict[str, Any]
) -> None:
    first = build()
    vars(backend).update(change)
    assert build() != first
    assert backend.builds == 2


def test_plugins_are_in_the_key(
    build: Callable[..., Path], backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.uses_plugins = True
    paths = set()
    for digest in ("a", "b", None):
        monkeypatch.setattr(base, "plugin_hash", lambda digest=digest: digest)
        paths.add(build(runner="auto"))
    assert len(paths) == 3


def test_the_onnx_file_and_the_weights_are_in_the_key(
    build: Callable[..., Path],
    tiny_onnx: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = onnx.load(tiny_onnx("fp32"))
    model.doc_string = "another"
    onnx.save(model, tmp_path / "another.onnx")
    assert build(tmp_path / "another.onnx") != build()
    file = OnnxFile.read(tiny_onnx("fp32"))
    monkeypatch.setattr(building, "cached_onnx", lambda *_, **__: file)
    nets = [rr.create_network("hinet", width=8, depth=3, seed=seed) for seed in (0, 1)]
    assert len({build(net) for net in nets}) == 2


def test_key_is_of_the_facts_and_not_of_their_order() -> None:
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})
    assert cache_key({"a": 1}) != cache_key({"a": "1"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda engine: engine.write_bytes(b"enginE"),
        lambda engine: engine.write_bytes(b"eng"),
        lambda engine: engine.unlink(),
        lambda engine: sidecar_path(engine).unlink(),
        lambda engine: sidecar_path(engine).write_text("{"),
        lambda engine: sidecar_path(engine).write_text("{}"),
    ],
    ids=["flipped", "truncated", "engine gone", "sidecar gone", "no JSON", "empty sidecar"],
)
def test_a_damaged_engine_is_built_again(
    build: Callable[..., Path], backend: FakeBackend, damage: Callable[[Path], object]
) -> None:
    path = build()
    damage(path)
    assert build() == path
    assert backend.builds == 2
    assert path.read_bytes() == b"engine"
    build()
    assert backend.builds == 2


def test_an_explicit_path_is_always_built(
    build: Callable[..., Path], backend: FakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/a.fake"
    for builds in (1, 2):
        assert build(path=out) == out
        assert backend.builds == builds
    assert _visible(out.parent) == ["a.fake", "a.fake.json"]


def test_unwritable_paths(build: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*: No such folder"):
        build(path=tmp_path / "none/a.fake")
    (tmp_path / "a.fake.json").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*a\.fake\.json"):
        build(path=tmp_path / "a.fake")


@pytest.mark.parametrize("under", ["file", "/proc", "read-only"])
def test_unwritable_cache(build: Callable[..., Path], tmp_path: Path, under: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "read-only").mkdir(mode=0o500)
    if under == "read-only" and os.geteuid() == 0:
        pytest.skip("nothing is read-only to root")
    (tmp_path / "cache").symlink_to(tmp_path / under / "cache")
    with pytest.raises(BuildError, match="choose another with RESTORERT_CACHE") as caught:
        build()
    assert "\n" not in str(caught.value)


def test_full_disk(tmp_path: Path) -> None:
    def build(path: Path) -> None:
        raise OSError(28, "No space left on device")

    cache = EngineCache(tmp_path)
    with pytest.raises(BuildError, match=r"No space left on device.*RESTORERT_CACHE"):
        cache.get_or_build(tmp_path / "a", lambda path: False, build)
    cache.get_or_build(tmp_path / "a", lambda path: True, build)  # the lock was given back


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORERT_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("RESTORERT_CACHE")
    assert cache_folder() == Path("/b/restorert")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/restorert"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(BuildError, match="set one with RESTORERT_CACHE"):
        EngineCache()


def test_size(build: Callable[..., Path]) -> None:
    assert EngineCache("/nowhere").size() == (0, 0)
    path = build()
    files, total = EngineCache(path.parent).size()
    assert files == 3
    assert total == path.stat().st_size + sidecar_path(path).stat().st_size


def test_refused_arguments(build: Callable[..., Path], backend: FakeBackend) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"profile": ShapeProfile.fixed((1, 3, 16, 16))}, "a shape or a profile, not both"),
        ({"precision": "int4"}, "unknown precision"),
        ({"runner": "torch"}, "has no engine files"),
        ({"runner": "nonsense"}, "unknown runner 'nonsense'; expected auto, fake, cuda, torch"),
        ({"shape": (1, 1, 16, 16)}, "takes 3 channels, not 1"),
        ({"shape": None, "profile": ShapeProfile.fixed((1, 3, 10, 16))}, "12x16"),
        ({"shape": "1x3x16x16"}, "is not an"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            build(**arguments)
    assert backend.builds == 0


@pytest.mark.slow
def test_onnx_of_another_precision(
    build: Callable[..., Path], tiny_onnx: Callable[[str], Path]
) -> None:
    with pytest.raises(InputError, match=r"is fp16; .* needs one of fp32"):
        build(tiny_onnx("fp16"))


@pytest.mark.parametrize("damage", [{"precision": 3}, {"network": "x"}, {"tile": "a"}])
def test_onnx_with_damaged_metadata(
    build: Callable[..., Path], tiny_onnx: Callable[[str], Path], tmp_path: Path, damage: Any
) -> None:
    import json

    model = onnx.load(tiny_onnx("fp32"))
    (entry,) = model.metadata_props
    entry.value = json.dumps(json.loads(entry.value) | damage)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(InputError) as caught:
        build(tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


_BUILD = """
import os, sys
import restorert as rr
from restorert.backends.openvino import OpenVINOBackend
build = OpenVINOBackend.build
def told(*arguments):
    print("built")
    return build(*arguments)
OpenVINOBackend.build = told
{0}
print(rr.build_engine_file(sys.argv[1], shape=(1, 3, 64, 64), runner="openvino"))
"""


def _start(onnx_path: Path, folder: Path, extra: str = "") -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", _BUILD.format(extra), str(onnx_path)],
        env=os.environ | {"RESTORERT_CACHE": str(folder), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_build_once(tiny_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    both = [_start(tiny_onnx("fp32"), tmp_path) for _ in range(2)]
    lines = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(told) for told in lines) == [1, 2]  # one of them says "built"
    (path,) = {told[-1] for told in lines}
    rr.load_engine(path)
    name = Path(path).name
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.json", f"{name}.lock"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        # The engine is written but not yet renamed: the first fsync is the inlined ONNX file's.
        "calls = []; os.fsync = lambda fd: calls and os.kill(os.getpid(), 9) or calls.append(fd)",
        # The engine has its name, its sidecar is not there.
        "restorert.engine.Sidecar.write = lambda *a: os.kill(os.getpid(), 9)",
    ],
    ids=["before the rename", "before the sidecar"],
)
def test_killed_in_the_middle(
    tiny_onnx: Callable[[str], Path], tmp_path: Path, moment: str
) -> None:
    pytest.importorskip("openvino")
    process = _start(tiny_onnx("fp32"), tmp_path, f"import restorert.engine.sidecar\n{moment}")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    left = [p for p in tmp_path.iterdir() if p.suffix == ".openvino"]
    assert left
    for path in left:
        with pytest.raises(EngineMismatchError, match="has no sidecar"):
            rr.load_engine(path)
    again = _start(tiny_onnx("fp32"), tmp_path)
    lines = again.communicate(timeout=120)[0].split()
    assert lines[0] == "built"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    rr.load_engine(lines[1])
