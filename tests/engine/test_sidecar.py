"""An engine that is not this machine's, or not whole, is refused before it is deserialised."""

from __future__ import annotations

import copy
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import restorert as rr
from restorert.backends.openvino import OpenVINOBackend
from restorert.cli import main as cli
from restorert.cli.build import profile_of, run_build
from restorert.engine import ShapeProfile
from restorert.engine.device import Device, Host
from restorert.engine.recipe import FLAGS, BuilderOptions
from restorert.engine.sidecar import check_host, read_sidecar, sidecar_path
from restorert.errors import EngineMismatchError, RunnerUnavailableError
from restorert.runtime.build import NetworkSource

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def built(tiny_onnx: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("built") / "tiny.openvino"
    return rr.build_engine_file(tiny_onnx("fp32"), path, shape=(1, 3, 16, 16), runner="openvino")


@pytest.fixture
def engine(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to damage; deserialising it fails the test."""
    monkeypatch.setattr(
        OpenVINOBackend, "load", lambda *args: pytest.fail("the engine was deserialised")
    )
    shutil.copy(sidecar_path(built), sidecar_path(tmp_path / built.name))
    return Path(shutil.copy(built, tmp_path))


def _change(engine: Path, **changes: Any) -> None:
    path = sidecar_path(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _refused(engine: Path, message: str | None = None) -> str:
    with pytest.raises(EngineMismatchError, match=message) as caught:
        rr.load_engine(engine)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert str(engine) in text
    return text


@pytest.mark.slow
def test_the_engine_itself_loads(built: Path) -> None:
    assert rr.load_engine(built).sidecar == read_sidecar(built)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runner": "nonsense"}, "unknown runner 'nonsense'"),
        ({"runner_version": "1.0"}, r"was built by openvino 1\.0, this machine has openvino 20"),
        ({"device": {"name": "Z80", "capability": "none"}}, r"was built for Z80 \(none\)"),
        ({"device": {}}, r"was built for None \(None\)"),
        ({"targets": ["8.9", "12.0"]}, r"built for compute capability 8\.9, 12\.0"),
        ({"plugins_sha256": "0" * 64}, "with another plugin library, this machine has"),
        ({"engine_bytes": 5}, "its sidecar says 5: the file is truncated or was replaced"),
        ({"engine_sha256": "0" * 64}, "is damaged or was replaced"),
        ({"network": {}}, "record of its network is damaged: 'network'"),
        (
            {"profile": {"min": [1, 1, 16, 16], "opt": [1, 1, 16, 16], "max": [1, 1, 16, 16]}},
            "hannel",
        ),
        (
            {"profile": {"min": [1, 3, 15, 16], "opt": [1, 3, 16, 16], "max": [1, 3, 16, 16]}},
            "multip",
        ),
    ],
)
def test_mismatch_names_the_rebuild_command(
    engine: Path, changes: dict[str, Any], message: str
) -> None:
    _change(engine, **changes)
    assert f"rebuild: {read_sidecar(engine).rebuild}" in _refused(engine, message)


def test_without_a_command_the_cure_is_in_words(engine: Path) -> None:
    _change(engine, runner_version="1.0", rebuild="")
    assert _refused(engine, "this machine has").endswith("; build it again from its network")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network", "hinet"),
        ("network", {"network": ["hinet"]}),
        ("network", {"network": {"a": {}}}),
        ("size_multiple", 0),
        ("size_multiple", "16"),
        ("size_multiple", True),
        ("in_channels", -3),
        ("tile", 1.5),
        ("padding_mode", "wrap"),
        ("padding_mode", None),
        ("precision", None),
        ("runner", ["openvino"]),
        ("engine_bytes", True),
        ("engine_bytes", "5"),
        ("profile", {"min": 3}),
        ("profile", {"min": [2, 3, 16, 16], "opt": [1, 3, 16, 16], "max": [1, 3, 16, 16]}),
        ("targets", "8.9"),
        ("targets", [["8.9"]]),
        ("layers", [1]),
        ("format", 2),
        ("format", True),
        ("format", 1.0),
        ("format", "\x1b[31m\n" * 100),
    ],
)
def test_damaged_values(engine: Path, field: str, value: Any) -> None:
    known = json.loads(sidecar_path(engine).read_text())
    nested = field not in known
    _change(
        engine, **({"network": known["network"] | {field: value}} if nested else {field: value})
    )
    _refused(engine)


@pytest.mark.parametrize("field", ["network", "profile", "engine_sha256", "rebuild", "format"])
def test_missing_values(engine: Path, field: str) -> None:
    path = sidecar_path(engine)
    values = json.loads(path.read_text())
    del values[field]
    path.write_text(json.dumps(values))
    _refused(engine, "format" if field == "format" else f"key '{field}' is missing")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "[" * 100_000, "9" * 5000, '{"format": 1', "\ufeff{}"]
)
def test_not_a_sidecar(engine: Path, text: str) -> None:
    sidecar_path(engine).write_text(text)
    _refused(engine, "is not valid JSON|has format")


def test_not_text(engine: Path) -> None:
    sidecar_path(engine).write_bytes(b"\xff\xfe\x00{}")
    _refused(engine, "is not valid JSON")


def test_missing_files(engine: Path, tmp_path: Path) -> None:
    engine.unlink()
    _refused(engine, "cannot read .*: No such file")
    sidecar_path(engine).unlink()
    _refused(engine, "tiny.openvino: no such file")
    engine.touch()
    _refused(engine, "has no sidecar tiny.openvino.json")
    engine.unlink()
    sidecar_path(engine).mkdir()
    _refused(engine, "cannot read .*: Is a directory")


def test_truncated_and_replaced_engines(engine: Path) -> None:
    content = engine.read_bytes()
    engine.write_bytes(content[:-1])
    _refused(engine, "truncated")
    engine.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    _refused(engine, "is damaged or was replaced")
    engine.unlink()
    engine.mkdir()
    _change(engine, engine_bytes=engine.stat().st_size)
    _refused(engine, "cannot read .*: Is a directory")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=200)
def test_hostile_values(built: Path, tmp_path: Path, data: st.DataObject) -> None:
    copy = tmp_path / "copy.openvino"
    original = json.loads(sidecar_path(built).read_text())
    copy.write_bytes(b"not an engine")  # hence no sidecar may be taken as this file's
    values = original | data.draw(st.dictionaries(st.sampled_from(sorted(original)), json_values))
    sidecar_path(copy).write_text(json.dumps(values))
    # RunnerUnavailableError: hypothesis may write the name of a runner that is missing here.
    with pytest.raises((EngineMismatchError, RunnerUnavailableError)) as caught:
        rr.load_engine(copy)
    assert "\n" not in str(caught.value)


def test_targets_that_are_no_text(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.openvino"
    copy.write_bytes(b"")
    original = json.loads(sidecar_path(built).read_text())
    sidecar_path(copy).write_text(json.dumps(original | {"targets": [None]}))
    with pytest.raises(
        EngineMismatchError, match="targets must be a list in which each item is a string; build"
    ):
        rr.load_engine(copy)


@given(st.text())
@example("\x1b]0;title\x07\nrebuild: rm")
def test_texts_in_errors_are_printable(built: Path, tmp_path: Path, text: str) -> None:
    copy = tmp_path / "copy.openvino"
    copy.write_bytes(b"")
    original = json.loads(sidecar_path(built).read_text())
    for field in ("rebuild", "runner", "runner_version"):
        sidecar_path(copy).write_text(json.dumps(original | {field: text}))
        with pytest.raises(EngineMismatchError) as caught:
            rr.load_engine(copy)
        assert str(caught.value).isprintable()


def test_wrong_runner(built: Path) -> None:
    with pytest.raises(EngineMismatchError, match="built by openvino, this machine has tensorrt;"):
        check_host(
            built,
            read_sidecar(built),
            Host("tensorrt", "10.15", Device("cuda", "GPU", "9.0")),
        )


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        (ShapeProfile.fixed((1, 3, 16, 16)), BuilderOptions()),
        (ShapeProfile.up_to((2, 3, 16, 24), 4), BuilderOptions(256, 5, ("8.9",))),
    ],
)
def test_the_rebuild_command_is_understood(
    tiny_onnx: Callable[[str], Path], tmp_path: Path, profile: ShapeProfile, options: BuilderOptions
) -> None:
    out = tmp_path / "-a folder" / "it's.openvino"
    out.parent.mkdir()
    rr.build_engine_file(
        tiny_onnx("fp32"),
        out,
        precision="fp16",
        profile=profile,
        runner="openvino",
        options=options,
    )
    program, *arguments = shlex.split(read_sidecar(out).rebuild)
    parsed = cli.parser().parse_args(arguments)
    assert program == "restorert"
    assert parsed.command is run_build
    assert (parsed.onnx, parsed.output) == (tiny_onnx("fp32"), out)
    assert (parsed.precision, parsed.runner) == ("fp16", "openvino")
    assert profile_of(parsed) == profile
    # OpenVINO has no such options, and the command line refuses them.
    assert (parsed.workspace_mib, parsed.optimization_level) == (None, None)
    flags = cli.parser().parse_args(["build", *options.flags(FLAGS)])
    assert flags.workspace_mib == options.workspace_mib
    assert flags.optimization_level == (None if options == BuilderOptions() else 5)
    assert parsed.compute_capabilities == []  # the machine that rebuilds has another GPU
    # The command does what it says.
    before = read_sidecar(out)
    assert cli.main(arguments) == 0
    assert read_sidecar(out).profile == before.profile
    assert read_sidecar(out).onnx_sha256 == before.onnx_sha256


@pytest.mark.slow
def test_the_rebuild_command_names_the_weights(
    network: rr.networks.RestorationNetwork, tmp_path: Path
) -> None:
    weights = tmp_path / "-w's.safetensors"
    rr.save_network(network, weights)
    loaded = rr.load_network(weights)
    for net, expected in ((loaded, weights), (network, None)):
        path = rr.build_engine_file(
            net, tmp_path / "a.openvino", shape=(1, 3, 16, 16), runner="openvino"
        )
        rebuild = read_sidecar(path).rebuild
        if expected is None:  # random weights of no published size are in no file
            assert rebuild == ""
        else:
            parsed = cli.parser().parse_args(shlex.split(rebuild)[1:])
            assert (parsed.model, parsed.weights) == ("hinet", expected)
            assert read_sidecar(path).weights_from == f"file {expected}"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: rr.load_network("hinet-tiny"), (("--model=hinet-tiny",), "the package")),
        # `restorert build --model` would take the package's.
        (lambda: rr.create_network("hinet-tiny"), ((), "random")),
        (lambda: rr.create_network("mprnet-derain"), (("--model=mprnet-derain",), "random")),
        (lambda: rr.create_network("mprnet-derain", seed=1), ((), "")),
        (lambda: copy.deepcopy(rr.create_network("mprnet-derain")), ((), "")),
    ],
)
def test_where_the_weights_come_from(
    make: Callable[[], rr.networks.RestorationNetwork], expected: tuple[tuple[str, ...], str]
) -> None:
    assert NetworkSource(make(), deploy=True).origin() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda net: next(net.parameters()).mul_(2),
        lambda net: net.load_state_dict({k: 2 * v for k, v in net.state_dict().items()}),
        lambda net: net.half(),
        lambda net: setattr(next(net.parameters()), "data", torch.zeros(3)),
    ],
)
@pytest.mark.parametrize("name", ["hinet-tiny", "mprnet-derain"])
def test_weights_changed_in_memory_are_in_no_file(
    name: str, change: Callable[[rr.networks.RestorationNetwork], object]
) -> None:
    shipped = name == "hinet-tiny"
    net = rr.load_network(name) if shipped else rr.create_network(name)
    change(net)
    assert NetworkSource(net, deploy=True).origin() == ((), "")


def test_without_deploy_form_the_command_says_so() -> None:
    net = rr.create_network("mprnet-derain")
    named = ("--model=mprnet-derain", "--no-deploy")
    assert NetworkSource(net, deploy=False).origin() == (named, "random")
