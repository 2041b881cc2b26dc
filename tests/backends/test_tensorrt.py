"""Engines of TensorRT-RTX, which builds without a GPU, and the rules for other versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import onnx
import pytest
import torch

import restorert as rr
from restorert.backends import choose
from restorert.backends.tensorrt import TensorRTBackend
from restorert.backends.tensorrt import build as tensorrt_build
from restorert.backends.tensorrt import module as module_of
from restorert.backends.tensorrt.build import build_tensorrt
from restorert.backends.tensorrt.module import TENSORRT, load_module, version_tuple
from restorert.backends.tensorrt.plan import Kernel, Plan
from restorert.engine import ShapeProfile, device
from restorert.engine.recipe import BuilderOptions
from restorert.engine.request import BuildRequest, Built
from restorert.engine.sidecar import check_engine_file, read_sidecar
from restorert.errors import BuildError, EngineMismatchError, RunnerUnavailableError
from restorert.export import OnnxFile

PROFILE = ShapeProfile((1, 3, 4, 4), (1, 3, 32, 32), (2, 3, 64, 64))
ADA = BuilderOptions(compute_capabilities=("8.9",))


def _request(
    onnx_path: Path,
    profile: ShapeProfile = PROFILE,
    options: BuilderOptions = ADA,
    precision: str = "fp16",
) -> BuildRequest:
    return BuildRequest(OnnxFile(onnx_path, "", {}), precision, profile, options)


KINDS = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}


@pytest.fixture(scope="module")
def rtx() -> Any:
    try:
        return load_module("tensorrt_rtx")
    except RunnerUnavailableError as error:
        pytest.skip(str(error))


def _check_sidecar(path: Path, precision: str, targets: tuple[str, ...]) -> None:
    sidecar = read_sidecar(path)
    check_engine_file(path, sidecar)
    assert (sidecar.runner, sidecar.precision) == ("tensorrt_rtx", precision)
    assert sidecar.precision_ran == precision
    assert sidecar.targets == targets
    assert sidecar.plugins_sha256 is None
    layers = sidecar.layers
    # All but the picture's own casts and additions.
    assert max(layers, key=lambda kind: layers[kind]) == KINDS[precision]
    assert set(layers) <= {"FLOAT", KINDS[precision], "INT32", "INT64"}  # integers are shapes
    assert layers[KINDS[precision]] > 40


def _check_refused_without_gpu(path: Path) -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises((RunnerUnavailableError, EngineMismatchError)) as caught:
        rr.load_engine(path)
    assert str(caught.value) == "tensorrt_rtx needs an NVIDIA GPU and torch sees none"


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_tiny_engines(
    rtx: Any, tiny_onnx: Callable[[str], Path], tmp_path: Path, precision: str
) -> None:
    told: list[tuple[str, float]] = []
    path = rr.build_engine_file(
        tiny_onnx(precision),
        tmp_path / "tiny.engine",
        precision=precision,
        profile=PROFILE,
        runner="tensorrt_rtx",
        options=ADA,
        progress=lambda phase, share: told.append((phase, share)),
    )
    _check_sidecar(path, precision, ("8.9",))
    assert read_sidecar(path).profile == PROFILE
    assert len({phase for phase, _ in told}) > 1
    assert {share for _, share in told} >= {0.0, 1.0}
    assert all(0 <= share <= 1 for _, share in told)
    _check_refused_without_gpu(path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_full_size_engines(rtx: Any, tmp_path: Path, precision: str) -> None:
    path = rr.build_engine_file(
        rr.create_network("hinet"),
        tmp_path / "hinet.engine",
        precision=precision,
        shape=(1, 3, 720, 1280),
        runner="tensorrt_rtx",
        options=ADA,
    )
    _check_sidecar(path, precision, ("8.9",))
    sidecar = read_sidecar(path)
    assert sidecar.profile == ShapeProfile((1, 3, 16, 16), (1, 3, 720, 1280), (1, 3, 720, 1280))
    # 88.67 million weights, of 4 and 2 bytes
    assert sidecar.engine_bytes > 88.67e6 * {"fp32": 4, "fp16": 2}[precision]
    assert "restorert build --model=hinet" in sidecar.rebuild
    _check_refused_without_gpu(path)


@pytest.mark.slow
def test_every_known_capability_without_a_gpu(
    rtx: Any, tiny_onnx: Callable[[str], Path], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine's GPU is the default")
    profile = ShapeProfile.fixed((1, 3, 16, 16))
    built = build_tensorrt(
        _request(tiny_onnx("fp16"), profile, BuilderOptions()),
        tmp_path / "a.engine",
        "tensorrt_rtx",
    )
    known = [name for name in rtx.ComputeCapability.__members__ if name.startswith("SM")]
    assert len(built.targets) == len(known) > 3


@pytest.mark.slow
def test_unknown_capability(rtx: Any, tiny_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        rr.build_engine_file(
            tiny_onnx("fp32"),
            tmp_path / "a.engine",
            profile=PROFILE,
            runner="tensorrt_rtx",
            options=BuilderOptions(compute_capabilities=("9.0",)),
        )
    assert "cannot build for compute capability 9.0; it supports 7.5, 8.0, 8.6, 8.9" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_the_parser_refuses(
    rtx: Any, tiny_onnx: Callable[[str], Path], tmp_path: Path
) -> None:
    model = onnx.load(tiny_onnx("fp32"))
    model.graph.node[3].op_type = "Nonsense"
    onnx.save(model, tmp_path / "nonsense.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    for name in ("nonsense", "garbage"):
        with pytest.raises(BuildError, match=f"^tensorrt_rtx cannot parse .*{name}.onnx: .+") as e:
            build_tensorrt(
                _request(tmp_path / f"{name}.onnx"), tmp_path / "a.engine", "tensorrt_rtx"
            )
        assert "\n" not in str(e.value)
    assert not (tmp_path / "a.engine").exists()


def test_unwritable_target(rtx: Any, tiny_onnx: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"^cannot write .*No such file"):
        build_tensorrt(
            _request(tiny_onnx("fp32"), precision="fp32"),
            tmp_path / "none/a.engine",
            "tensorrt_rtx",
        )


def test_missing_tensorrt() -> None:
    try:
        load_module("tensorrt")
    except RunnerUnavailableError as error:
        message = str(error)
    else:
        pytest.skip("tensorrt is installed")
    expected = "tensorrt is not usable (not installed); install it with: pip install tensorrt"
    assert message == expected
    with pytest.raises(RunnerUnavailableError) as caught:
        rr.build_engine_file("a.onnx", runner="tensorrt", to_run=True)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensorrt_means_rtx_where_only_that_is_installed(rtx: Any) -> None:
    try:
        load_module("tensorrt")
    except RunnerUnavailableError:
        assert choose("tensorrt", to_run=False).name == "tensorrt_rtx"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (SimpleNamespace(__version__="8.6.1", Builder=None), "8.6.1 is too old; 10.8 or newer"),
        (SimpleNamespace(__version__="10.7.0", Builder=None), "10.7.0 is too old"),
        (SimpleNamespace(__version__="11.0"), "is not usable .*no attribute 'Builder'"),
    ],
)
def test_unusable_modules(monkeypatch: pytest.MonkeyPatch, module: Any, message: str) -> None:
    monkeypatch.setattr(module_of.importlib, "import_module", lambda name: module)
    with pytest.raises(RunnerUnavailableError, match=message):
        load_module.__wrapped__("tensorrt")


def test_versions() -> None:
    assert version_tuple("10.15.1.29") == (10, 15, 1, 29)
    assert version_tuple("10.8.0.43") >= (10, 8)
    assert version_tuple("9.3.0") < (10, 8)


class _FakeTensorRT(MagicMock):
    """Records what `build_tensorrt` asks for; tensorrt itself cannot be installed everywhere."""

    def __init__(self, version: str, flags: SimpleNamespace) -> None:
        super().__init__()
        self.__name__ = "tensorrt"
        self.__version__ = version
        self.ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)})
        self.NetworkDefinitionCreationFlag = flags
        self.OnnxParserFlag = SimpleNamespace()
        if version_tuple(version) >= (10, 15):
            self.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE = "override"
        del self.ComputeCapability
        self.builder = self.Builder.return_value
        network = self.builder.create_network.return_value
        network.num_layers = 0
        self.builder.build_serialized_network.return_value = b"plan"
        self.parser = self.OnnxParser.return_value

    def _get_child_mock(self, **arguments: Any) -> MagicMock:
        return MagicMock(**arguments)


@pytest.fixture
def fake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_onnx: Callable[[str], Path]
) -> Callable[..., _FakeTensorRT]:
    def build(version: str, strongly_typed: bool = True, plugins: bool = False) -> _FakeTensorRT:
        flags = SimpleNamespace(STRONGLY_TYPED=1) if strongly_typed else SimpleNamespace()
        trt = _FakeTensorRT(version, flags)
        library = tmp_path / "plugins.so" if plugins else None
        monkeypatch.setattr(tensorrt_build, "load_module", lambda name: trt)
        monkeypatch.setattr(module_of, "_LOADED", {})
        monkeypatch.setattr(device, "plugin_library", lambda: library)
        request = _request(tiny_onnx("fp16"), options=BuilderOptions())
        built = build_tensorrt(request, tmp_path / "a.engine", "tensorrt")
        assert (tmp_path / "a.engine").read_bytes() == b"plan"
        assert built.plugins == plugins
        assert built.targets == ()  # TensorRT proper builds for the GPU it runs on
        return trt

    return build


@pytest.mark.slow
@pytest.mark.parametrize(("strongly_typed", "flags"), [(True, 2), (False, 0)])
def test_networks_are_strongly_typed(
    fake: Callable[..., _FakeTensorRT], strongly_typed: bool, flags: int
) -> None:
    trt = fake("11.2", strongly_typed)
    trt.builder.create_network.assert_called_once_with(flags)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.8.0", "10.14.1", "10.15.1", "11.0.0"])
@pytest.mark.parametrize("plugins", [False, True])
def test_plugins_replace_functions(
    fake: Callable[..., _FakeTensorRT], version: str, plugins: bool
) -> None:
    trt = fake(version, plugins=plugins)
    override = version_tuple(version) >= (10, 15)
    (source,) = trt.parser.parse.call_args.args
    # Before 10.15 a function's body wins over a plugin, so it must go.
    assert bool(onnx.load_from_string(source).functions) == (override or not plugins)
    assert trt.parser.set_flag.called == (override and plugins)
    assert trt.get_plugin_registry.return_value.load_library.called == plugins


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_refused_build_leaves_the_old_engine(
    fake: Callable[..., _FakeTensorRT],
    tiny_onnx: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    trt = fake("10.15.1")
    trt.builder.build_serialized_network.return_value = b"another plan"
    plan = Plan((Kernel("a", "convolution", 0, 0, (), "fp16"),))
    monkeypatch.setattr(tensorrt_build, "read_plan", lambda lines: plan)
    target = tmp_path / "a.engine"

    def build(precision: str) -> Built:
        request = _request(tiny_onnx("fp16"), options=BuilderOptions(), precision=precision)
        return TensorRTBackend(TENSORRT).build(request, target, None)

    with pytest.raises(BuildError, match="layers all run in fp16; build for fp16, with another"):
        build(precision)
    assert target.read_bytes() == b"plan"
    assert list(tmp_path.iterdir()) == [target]
    assert build("fp16").precisions == {"fp16": 1}
    assert target.read_bytes() == b"another plan"
