"""Engines on this machine's CPU: the network's picture for any array kind and any size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import restorert as rr
from restorert.backends import runner_names
from restorert.backends.openvino.module import load_module
from restorert.backends.torch.run import TorchRunner
from restorert.engine import ShapeProfile, device
from restorert.engine.device import Device
from restorert.errors import (
    DeviceMemoryError,
    InputError,
    RestorertError,
    RunnerUnavailableError,
)
from restorert.runtime import Engine
from restorert.runtime.engine import broken_frames
from restorert.testing import psnr

LARGEST = (2, 3, 208, 336)


@pytest.fixture(scope="module")
def openvino(network: rr.networks.RestorationNetwork) -> Engine:
    pytest.importorskip("openvino")
    return rr.build_engine(network, shape=LARGEST, runner="openvino")


@pytest.fixture(params=["openvino", "torch"])
def engine(request: pytest.FixtureRequest, network: rr.networks.RestorationNetwork) -> Engine:
    if request.param == "openvino":
        return request.getfixturevalue("openvino")
    return Engine(TorchRunner(network, device="cpu"), network.spec)


def _frames(n: int = 1, height: int = 17, width: int = 23) -> np.ndarray:
    return np.random.default_rng(n).random((n, 3, height, width), dtype=np.float32)


def _expected(network: torch.nn.Module, frames: np.ndarray) -> np.ndarray:
    """The network itself on numpy's padding."""
    height, width = frames.shape[2:]
    grow = ((0, 0), (0, 0), (0, -height % 4), (0, -width % 4))
    padded = torch.from_numpy(np.pad(frames.astype(np.float32), grow, mode="reflect"))
    return network(padded).numpy()[:, :, :height, :width]


@pytest.mark.parametrize("size", [(1, 1), (17, 23), (16, 16), (208, 336)])
@pytest.mark.parametrize("batch", [1, 3])
def test_picture_of_the_network(
    network: rr.networks.RestorationNetwork, engine: Engine, batch: int, size: tuple[int, int]
) -> None:
    frames = _frames(batch, *size)
    found = engine(frames)
    # measured worst: 3.0e-6, at one pixel
    np.testing.assert_allclose(found, _expected(network, frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("runner", ["openvino", "torch"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_says_what_it_runs(
    network: rr.networks.RestorationNetwork, runner: str, precision: str
) -> None:
    if runner == "openvino":
        pytest.importorskip("openvino")
    elif torch.cuda.is_available():
        pytest.skip("torch runs on the GPU")
    engine = rr.build_engine(network, precision=precision, shape=(1, 3, 64, 96), runner=runner)
    runs = "bf16" if device.cpu_has_bf16() else "fp32"
    if "amx_fp16" in device.cpu().capability and (runner, precision) == ("openvino", "fp16"):
        runs = "fp16"
    assert engine.runner.precision == runs
    assert f", {runs}, " in engine.describe()
    frames = _frames(1, 64, 96)
    found, expected = (torch.from_numpy(a) for a in (engine(frames), _expected(network, frames)))
    assert psnr(found, expected) > 50  # measured worst: 64.5


def test_fixed_and_large_minimum_shapes(network: rr.networks.RestorationNetwork) -> None:
    pytest.importorskip("openvino")
    profile = ShapeProfile.fixed((2, 3, 24, 24))
    engine = rr.build_engine(network, profile=profile, runner="openvino")
    for batch in (1, 2, 3):  # the last chunk is filled up
        frames = _frames(batch, 17, 9)
        padded = np.pad(frames, ((0, 0), (0, 0), (0, 7), (0, 15)), mode="reflect")
        expected = network(torch.from_numpy(padded)).numpy()[:, :, :17, :9]
        # measured worst: 1.5e-7, without AVX 8.4e-7
        np.testing.assert_allclose(engine(frames), expected, rtol=0, atol=5e-6)


Convert = Callable[[np.ndarray], Any]
FLOATS: dict[str, tuple[Convert, float]] = {
    # measured: 1.2e-7, but for the rounding of results: 4.9e-4 in float16, 3.9e-3 in bfloat16
    "float32": (lambda a: a, 1e-6),
    "float64": (lambda a: a.astype(np.float64), 1e-6),
    "float16": (lambda a: a.astype(np.float16), 1e-3),
    "tensor": (torch.from_numpy, 1e-6),
    "tensor of float64": (lambda a: torch.from_numpy(a).double(), 1e-6),
    "tensor of float16": (lambda a: torch.from_numpy(a).half(), 1e-3),
    "tensor of bfloat16": (lambda a: torch.from_numpy(a).bfloat16(), 8e-3),
    "tensor, channels last": (
        lambda a: torch.from_numpy(a).contiguous(memory_format=torch.channels_last),
        1e-6,
    ),
    "tensor with gradient": (lambda a: torch.from_numpy(a).requires_grad_(), 1e-6),
    "not contiguous": (lambda a: np.asfortranarray(a), 1e-6),
    "sliced": (lambda a: np.repeat(a, 2, axis=3)[..., ::2], 1e-6),
    "negative strides": (lambda a: a[:, ::-1, ::-1, ::-1].copy()[:, ::-1, ::-1, ::-1], 1e-6),
    "read-only": (lambda a: _read_only(a), 1e-6),
}


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def _numpy(value: Any) -> np.ndarray:
    return value.detach().float().numpy() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("single", [False, True])
def test_float_kinds(engine: Engine, kind: str, single: bool) -> None:
    convert, tolerance = FLOATS[kind]
    frames = _frames(2)
    given = convert(frames)
    exact = engine(_numpy(given).astype(np.float32))
    if single:
        given, exact = given[0], exact[0]
    before = given.clone() if isinstance(given, torch.Tensor) else given.copy()
    found = engine(given)
    assert type(found) is type(given)
    assert found.dtype == given.dtype
    assert found.shape == given.shape
    np.testing.assert_allclose(_numpy(found), exact, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(_numpy(given), _numpy(before))


@pytest.mark.parametrize("convert", [lambda a: a, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("single", [False, True])
def test_uint8_is_the_rounded_float_result(engine: Engine, convert: Convert, single: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, 17, 23, 3), dtype=np.uint8)
    floats = engine((levels.astype(np.float32) / 255).transpose(0, 3, 1, 2))
    expected = np.rint(floats.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    assert (expected == 255).any()  # something to clamp
    given = convert(levels[0] if single else levels)
    found = engine(given)
    assert type(found) is type(given)
    np.testing.assert_array_equal(np.asarray(found), expected[0] if single else expected)
    assert np.array_equal(given, levels[0] if single else levels)


class Foreign:
    """An array of an unknown library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Kindred(Foreign):
    """An array whose class reads DLPack."""

    @classmethod
    def from_dlpack(cls, other: Any) -> Kindred:
        return cls(np.from_dlpack(other))


class Standard(Foreign):
    """An array of a library that follows the array API standard."""

    def __array_namespace__(self) -> Any:
        return Kindred


@pytest.mark.parametrize(
    ("kind", "returned"), [(Foreign, torch.Tensor), (Kindred, Kindred), (Standard, Kindred)]
)
def test_dlpack(engine: Engine, kind: type, returned: type) -> None:
    frames = _frames()
    found = engine(kind(frames))
    assert type(found) is returned
    np.testing.assert_array_equal(np.from_dlpack(found), engine(frames))


@pytest.mark.parametrize(
    "array",
    [
        _frames()[:, :, ::-1, ::-1],
        _frames().transpose(0, 1, 3, 2),
        torch.from_numpy(_frames()).bfloat16(),
        (_frames() * 255).astype(np.uint8).transpose(0, 2, 3, 1)[..., ::-1],
    ],
    ids=["negative strides", "transposed", "bfloat16", "BGR"],
)
def test_dlpack_of_unusual_arrays(engine: Engine, array: Any) -> None:
    found = engine(Foreign(array))
    expected = engine(array)
    assert torch.equal(found, torch.as_tensor(expected))


@pytest.mark.parametrize(
    "frames",
    [
        Foreign(_frames().astype(np.complex64)),
        Foreign(_frames() > 0.5),
        Foreign(_frames().astype(np.int32)),
        Foreign(3),
        Foreign(np.array(["a"])),
    ],
    ids=["complex", "bool", "int32", "nothing", "text"],
)
def test_refused_dlpack(engine: Engine, frames: Any) -> None:
    with pytest.raises(InputError) as caught:
        engine(frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3, 17, 23), (0, 3, 400, 23)])
def test_empty_batches(engine: Engine, shape: tuple[int, ...]) -> None:
    if shape[2] > LARGEST[2] and engine.runner.profile:
        with pytest.raises(InputError, match="exceed"):
            engine(np.zeros(shape, np.float32))
        return
    found = engine(np.zeros(shape, np.float32))
    assert (found.shape, found.dtype) == (shape, np.float32)
    n, c, h, w = shape
    found = engine(np.zeros((n, h, w, c), np.uint8))
    assert (found.shape, found.dtype) == ((n, h, w, c), np.uint8)


def test_results_have_memory_of_their_own(engine: Engine) -> None:
    # 16 x 16 needs no padding, hence no copy of the input.
    frames = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)
    first = engine(frames)
    kept = first.copy()
    second = engine(frames * 0.5)
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, frames)
    np.testing.assert_array_equal(first, kept)
    first += 1  # results can be changed
    tensor = engine(torch.from_numpy(frames))
    assert not tensor.requires_grad
    tensor.add_(1)


DTYPES = ("int32", "uint16", "bool", "complex64", "object", ">f4", "U3", "longdouble", "M8[s]")


@pytest.mark.parametrize("dtype", DTYPES)
def test_refused_dtypes(engine: Engine, dtype: str) -> None:
    with pytest.raises(InputError, match=r"^frames have dtype .*; expected ") as caught:
        engine(np.zeros((1, 3, 8, 8), dtype))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((8, 8), np.float32), "2 dimensions; expected [N, C, H, W]"),
        (np.zeros((8, 8), np.uint8), "2 dimensions; expected [N, H, W, C]"),
        (np.zeros((1, 1, 3, 8, 8), np.float32), "5 dimensions"),
        (np.zeros((), np.float32), "expected [N, C, H, W]"),
        (np.zeros((1, 8, 8, 3), np.float32), "8 channels in [N, C, H, W]; hinet takes 3"),
        (np.zeros((1, 3, 8, 8), np.uint8), "8 channels in [N, H, W, C]; hinet takes 3"),
        (np.zeros((1, 4, 8, 8), np.float32), "4 channels"),
        (np.zeros((1, 3, 0, 8), np.float32), "hold no pixels"),
        (np.zeros((1, 8, 0, 3), np.uint8), "hold no pixels"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "dtype int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), "dtype bool"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.cfloat), "dtype complex64"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "sparse"),
        ([[1.0]], "frames are a list; expected"),
        (None, "frames are a NoneType; expected"),
        ("in.png", "frames are a str; expected"),
    ],
)
def test_refused_frames(engine: Engine, frames: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        engine(frames)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_large(openvino: Engine) -> None:
    with pytest.raises(InputError) as caught:
        openvino(np.zeros((1, 3, 211, 20), np.float32))
    assert str(caught.value) == (
        "frames of 20x211 exceed this engine's 336x208; restore in tiles or build for 2x3x212x336"
    )


class _Runner:
    """A runner that fails, or tells what it was given."""

    name, version, precision = "fake", "1.0-2-g3", "fp32"
    device = Device("cpu", "abacus", "wood")
    torch_device = torch.device("cpu")
    profile = None

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 5 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_not_enough_memory(network: rr.networks.RestorationNetwork, error: Exception) -> None:
    engine = Engine(_Runner(error), network.spec)
    with pytest.raises(DeviceMemoryError, match="smaller tiles") as caught:
        engine(_frames())
    assert "not enough memory for 1x3x20x24 on abacus" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are(network: rr.networks.RestorationNetwork) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        Engine(_Runner(RuntimeError("a bug")), network.spec)(_frames())


def test_description_has_the_short_version(
    network: rr.networks.RestorationNetwork, openvino: Engine
) -> None:
    text = Engine(_Runner(MemoryError()), network.spec).describe()
    assert text == "hinet on fake 1.0, fp32, abacus (wood)"
    assert openvino.sidecar is not None
    assert openvino.sidecar.runner_version == load_module().__version__
    short = openvino.sidecar.runner_version.split("-")[0]
    assert openvino.describe().startswith(f"hinet on openvino {short}, fp32, ")
    assert "shapes 1x3x4x4 / 2x3x208x336 / 2x3x208x336" in openvino.describe()
    assert openvino.describe() in repr(openvino)


def test_threads_share_an_engine(engine: Engine) -> None:
    inputs = [_frames(n + 1, 40, 48 + 4 * n) for n in range(4)]
    expected = [engine(frames) for frames in inputs]
    wrong: list[str] = []

    def work(first: int) -> None:
        for turn in range(12):
            index = (first + turn) % len(inputs)
            try:
                if not np.array_equal(engine(inputs[index]), expected[index]):
                    wrong.append("another picture")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_engines_are_freed_and_loaded_again(openvino: Engine) -> None:
    # The blob is mapped: a model that outlives its map would crash here.
    path = rr.build_engine_file(
        rr.create_network("hinet", width=8, depth=3), shape=LARGEST, runner="openvino"
    )
    frames = _frames()
    expected = openvino(frames)
    for _ in range(3):
        loaded = rr.load_engine(path)
        np.testing.assert_array_equal(loaded(frames), expected)
        del loaded


def test_loaded_engine_survives_the_file(
    network: rr.networks.RestorationNetwork, openvino: Engine, tmp_path: Any
) -> None:
    path = rr.build_engine_file(network, tmp_path / "a", shape=LARGEST, runner="openvino")
    loaded = rr.load_engine(path)
    rr.build_engine_file(network, path, shape=(1, 3, 16, 16), runner="openvino")
    path.unlink()
    np.testing.assert_array_equal(loaded(_frames()), openvino(_frames()))


@pytest.fixture
def no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("auto takes TensorRT here")


@pytest.mark.usefixtures("no_gpu")
def test_auto(
    network: rr.networks.RestorationNetwork, openvino: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rr.build_engine(network, shape=LARGEST).runner.name == "openvino"

    def missing() -> Any:
        raise RunnerUnavailableError("openvino is not usable (not installed)")

    monkeypatch.setattr("restorert.backends.openvino.load_module", missing)
    fallen_back = rr.build_engine(network, shape=LARGEST)
    assert fallen_back.runner.name == "torch"
    assert fallen_back.sidecar is None
    with pytest.raises(RunnerUnavailableError, match="openvino is not usable"):
        rr.build_engine(network, shape=LARGEST, runner="openvino")
    with pytest.raises(RunnerUnavailableError, match="openvino is not usable"):
        rr.build_engine("a.onnx")


@pytest.mark.parametrize("runner", ["nonsense", "", "Openvino"])
def test_unknown_runner(network: rr.networks.RestorationNetwork, runner: str) -> None:
    with pytest.raises(InputError, match="unknown runner"):
        rr.build_engine(network, runner=runner)
    assert runner_names()[0] == "auto"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_torch_runner_leaves_the_network_alone(
    network: rr.networks.RestorationNetwork, precision: str
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    runner = TorchRunner(network, precision, device="cpu")
    runner(torch.rand(1, 3, 8, 8))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert runner.profile is None


def test_torch_runner_refuses() -> None:
    net = rr.create_network("hinet", width=2, depth=2)
    with pytest.raises(InputError, match="int8 needs an ONNX file calibrated"):
        TorchRunner(net, "int8")
    if not torch.cuda.is_available():
        with pytest.raises(RunnerUnavailableError, match="cannot use the device cuda"):
            TorchRunner(net, device="cuda")
    net.last.weight[0, 0, 0, 0] = 1e5
    with pytest.raises(InputError, match="exceeds 65504"):
        TorchRunner(net, "fp16")


def test_openvino_failures_are_told(openvino: Engine) -> None:
    with pytest.raises(RestorertError, match=r"^openvino failed: [^\n]+$"):
        openvino.runner(torch.zeros(1, 3, 500, 500))
    openvino(_frames())  # and the engine still runs


class _Spoiling(TorchRunner):
    """Spoils some of the frames that it is given."""

    precision = "fp16"
    calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        restored = super().__call__(x)
        for index, value in enumerate((float("nan"), float("inf"), None, 0.25)):
            if value is not None and index < len(restored):
                restored[index, 1, : 3 if index < 2 else None] = value
        if len(restored) > 3:
            restored[3] = 0.25
        return restored


def test_spoiled_frames_run_again(
    network: rr.networks.RestorationNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    made = []

    def safer() -> Engine:
        made.append(Engine(TorchRunner(network, device="cpu"), network.spec))
        return made[-1]

    runner = _Spoiling(network, device="cpu")
    engine = Engine(runner, network.spec, fallback=safer)
    frames = _frames(4)
    # measured worst: 1.2e-7
    np.testing.assert_allclose(engine(frames), _expected(network, frames), rtol=0, atol=2e-6)
    assert engine.frames_repeated == 3
    eight_bits = (frames.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    # another size of batch may sum in another order, and round to the next level; measured: 0
    assert np.abs(engine(eight_bits).astype(int) - made[0](eight_bits)).max() <= 1
    assert (engine.frames_repeated, len(made), runner.calls) == (6, 1, 2)
    (record,) = caplog.records
    assert "such frames are run again in fp32" in record.getMessage()
    # a picture of one colour may stay one, and nothing repeats what nobody asked to
    assert not broken_frames(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).any()
    assert np.isnan(Engine(runner, network.spec)(frames)).any()


def test_half_precision_falls_back_to_the_next(network: rr.networks.RestorationNetwork) -> None:
    if not device.cpu_has_bf16():
        pytest.skip("this CPU runs fp32 for fp16")
    engine = rr.build_engine(network, precision="fp16", runner="torch")
    assert engine.fallback is not None
    safer = engine.fallback()
    assert safer.runner.precision == "fp32"
    assert safer.fallback is None


class _Coarse(TorchRunner):
    """Rounds to few levels: far from float32, but never NaN."""

    precision = "int8"
    coarse = True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        restored = super().__call__(x)
        return (restored * 16).round() / 16 if self.coarse else restored + 1e-4


def test_verified_frames(
    network: rr.networks.RestorationNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    runner = _Coarse(network, device="cpu")
    runner.coarse = False
    engine = Engine(
        runner, network.spec, fallback=lambda: Engine(TorchRunner(network), network.spec), verify=3
    )
    frames = _frames(7)
    expected = _expected(network, frames)
    near = engine(frames)
    report = engine.report()
    # frames 1, 4 and 7
    assert (report.frames, report.verified, report.distrusted) == (7, 3, False)
    assert report.lowest_psnr == pytest.approx(80, abs=0.5)  # an error of 1e-4, some of it clamped
    assert not caplog.records
    # measured worst: 1.4e-7; none was replaced
    np.testing.assert_allclose(near, expected + 1e-4, rtol=0, atol=2e-6)
    runner.coarse = True
    single = [engine(frame) for frame in frames[:3]]  # frames 8, 9 and 10: the last is verified
    levels = np.round(expected * 16) / 16
    for found, frame in zip(single[:2], levels, strict=False):
        np.testing.assert_allclose(found, frame, rtol=0, atol=2e-6)
    np.testing.assert_allclose(single[2], expected[2], rtol=0, atol=2e-6)
    report = engine.report()
    assert (report.frames, report.verified, report.distrusted) == (10, 4, True)
    assert str(report).endswith(" dB, distrusted, now in fp32")
    assert report.lowest_psnr < 40
    (record,) = caplog.records
    assert "at frame 10, below 40: from here on frames run in fp32" in record.getMessage()
    # all later ones, and in one batch those from the bad one on
    np.testing.assert_allclose(engine(frames), expected, rtol=0, atol=2e-6)
    again = Engine(
        runner, network.spec, fallback=lambda: Engine(TorchRunner(network), network.spec), verify=5
    )
    again(frames[:4])  # frame 1
    assert again.report().distrusted
    batch = Engine(
        runner, network.spec, fallback=lambda: Engine(TorchRunner(network), network.spec), verify=5
    )
    runner.coarse = False
    batch(frames[:1])
    runner.coarse = True
    found = batch(frames)  # frames 2 to 8: frame 6 is verified, the fifth of these
    np.testing.assert_allclose(found[:4], levels[:4], rtol=0, atol=2e-6)
    np.testing.assert_allclose(found[4:], expected[4:], rtol=0, atol=2e-6)


def test_verify_is_a_number_of_frames(network: rr.networks.RestorationNetwork) -> None:
    with pytest.raises(InputError, match="verify must be >= 0"):
        rr.build_engine(network, runner="torch", verify=-1)
