"""The command line: what it prints where, its exit status, and the files it leaves."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from skimage import data

import restorert as rr
from restorert import backends
from restorert.backends import openvino, tensorrt
from restorert.cli import inspect, networks
from restorert.cli import main as cli
from restorert.cli.build import profile_of
from restorert.cli.options import network_of
from restorert.cli.restore import tile_of
from restorert.engine import ShapeProfile, device
from restorert.engine.sidecar import read_sidecar, sidecar_path
from restorert.errors import Cure, DeviceMemoryError, InputError
from restorert.export import read_metadata
from restorert.quantize import quantize
from restorert.weights import weights_hash

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def _runner() -> None:
    pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    rr.save_network(rr.create_network("hinet", width=8, depth=3), path)
    return path


@pytest.fixture(scope="module")
def engine(weights: Path) -> Path:
    path = weights.with_name("tiny.openvino")
    return rr.build_engine_file(
        rr.load_network(weights), path, shape=(1, 3, 64, 96), runner="openvino"
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "in[red].png"  # brackets are markup to the library that prints
    Image.fromarray(data.astronaut()[100:150, 200:281]).save(path)
    return path


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def _expected(weights: Path, picture: Path) -> np.ndarray:
    """The picture through the network itself."""
    net = rr.load_network(weights)
    pixels = _pixels(picture) / 255
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    restored = net(torch.from_numpy(padded).float().permute(2, 0, 1)[None])[0]
    levels = restored.permute(1, 2, 0)[:height, :width].clamp(0, 1) * 255
    return levels.round().int().numpy()


def _fails(arguments: list[str] | str, capsys: Capture, message: str = "") -> str:
    """Exit status 2, one line on stderr, nothing on stdout.

    Before that line may stand the one on random weights.
    """
    given = shlex.split(arguments) if isinstance(arguments, str) else arguments
    assert cli.main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    if err.startswith("random weights of "):
        err = err.partition("\n")[2]
    assert err.startswith("restorert: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert message in err
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND; see: restorert --help"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("networks --what", "unrecognized arguments: --what"),
        ("build", "name a network with --model NAME or a checkpoint with --weights FILE"),
        ("build --model hinett", "unknown network 'hinett'; did you mean hinet"),
        ("build --model hinet --weights none.pth", "none.pth: no such file"),
        ("build --weights .", ". is a folder; name the checkpoint file in it"),
        ("build --model hinet --runner cuda", "cuda runner runs networks in memory"),
        ("build --model hinet --runner torch", "has no engine files"),
        ("build --model hinet --precision int3", "invalid choice: 'int3'"),
        ("build --model hinet --precision int8", "int8 needs pictures to calibrate on"),
        ("build --onnx none.onnx --images .", "--onnx excludes --images"),
        ("build --model hinet --fp16 --images .", "no pictures to calibrate with in ."),
        ("export --model hinet --precision int8 -o a.onnx", "invalid choice: 'int8'"),
        ("restore a.png b.png --precision int4", "invalid choice: 'int4'"),
        ("calibrate --model hinet -o a.onnx", "give pictures with --images DIR or an earlier"),
        ("calibrate --images . -o a.onnx", "no pictures to calibrate with in ."),
        ("calibrate --model hinet --images . -o a.onnx", "no pictures to calibrate with in ."),
        ("calibrate --model hinet --images none -o a.onnx", "cannot read picture none"),
        ("calibrate --model hinet --cache none.json -o a.onnx", "cannot read calibration cache"),
        ("calibrate --model hinet --images . --method x -o a.onnx", "invalid choice: 'x'"),
        (
            "calibrate --model hinet --images . --keep-fp16 auto --keep-fp16 last -o a.onnx",
            "takes auto or layers, not both",
        ),
        ("build --model hinet --shapes 1x3x16", "'1x3x16' is not a shape; write NxCxHxW"),
        ("build --model hinet --shapes 1x3x0x16", "is not an [N, C, H, W] shape"),
        ("build --model hinet --shapes 1x3x17x16 --runner openvino", "17x16 is 32x16"),
        ("build --model hinet --shapes 1x1x16x16 --runner openvino", "takes 3 channels, not 1"),
        ("build --model hinet --shapes 1x3x16x16 --minShapes 1x3x16x16", "--shapes excludes"),
        ("build --model hinet --minShapes 1x3x16x16", "--maxShapes go together"),
        (
            "build --model hinet --minShapes 1x3x32x16 --optShapes 1x3x16x16 --maxShapes 1x3x64x64",
            "not ordered",
        ),
        ("build --recipe none.toml", "cannot read recipe none.toml"),
        ("build --recipe .", "cannot read recipe ."),
        ("build --onnx none.onnx --runner openvino", "cannot read none.onnx"),
        ("build --onnx . --fp16", "cannot read ."),
        ("build --onnx none.onnx --model hinet", "--onnx excludes --model"),
        ("build --model hinet --optimization-level 7", "a whole number from 0 to 5, not '7'"),
        ("build --model hinet --optimization-level x", "a whole number from 0 to 5, not 'x'"),
        (
            "build --model hinet --workspace 0",
            "argument --workspace: must be a whole number from 1 to",
        ),
        ("export --model hinet", "the following arguments are required: -o/--output"),
        ("export -o a.onnx", "name a network"),
        ("export --model hinet -o none/a.onnx", "cannot write none/a.onnx"),
        ("export --model hinet -o .", "cannot write .: Is a directory"),
        ("export --model hinet -o x.png", "x.png will be an ONNX file: give it a name that ends"),
        ("export --model hinet -o /proc/x.onnx", "cannot write /proc/x.onnx: "),
        ("calibrate --weights hinet-tiny --images /proc/version -o q", "ends in .onnx"),
        ("calibrate --model hinet --cache a.json -o /proc/q.onnx", "cannot write /proc/q.onnx: "),
        ("build --model hinet -o . --runner openvino", "cannot write .: Is a directory"),
        ("build --model hinet -o /proc/a --runner openvino", "cannot write /proc/a: "),
        ("calibrate --model hinet --cache a.json --limit nan -o q.onnx", "--limit must be dB >= 0"),
        ("build --model hinet --images . --limit -1", "--limit must be dB >= 0"),
        (
            "calibrate --images . -n 0 -o q.onnx",
            "argument -n/--patches: must be a whole number >= 1",
        ),
        (
            "calibrate --images . --noise nan -o q.onnx",
            "argument --noise: must be a number from 0 to 255",
        ),
        ("calibrate --images . --runner foo -o q.onnx", "argument --runner: invalid choice: 'foo'"),
        (
            "calibrate --cache a.json --method mse -o q.onnx",
            "--method has no meaning with --cache",
        ),
        ("calibrate --cache a.json -n 3 -o q.onnx", "-n has no meaning without --images"),
        (
            "calibrate --images . --percentile 9 -o q.onnx",
            "--percentile has no meaning without --method percentile",
        ),
        ("build --onnx a --no-deploy", "--no-deploy has no meaning with --onnx"),
        ("build --onnx a --noise 1", "--conditions has no meaning with --onnx"),
        ("build --onnx a --keep-fp16 auto", "--keep-fp16 has no meaning with --onnx"),
        ("build --model hinet --limit 1", "--limit has no meaning without --images"),
        (
            "build --model hinet --images . --keep-fp16 a --bf16",
            "--keep-fp16 has no meaning with bf16",
        ),
        (
            "build --model hinet --runner openvino --optimization-level 2",
            "--optimization-level has no meaning with openvino",
        ),
        (
            "build --model hinet --runner openvino --compute-capability 8.9",
            "--compute-capability has no meaning with openvino",
        ),
        ("inspect a.onnx --fp16", "--precision fp16 has no meaning with an ONNX file"),
        ("inspect a.onnx --no-deploy", "--no-deploy has no meaning with an ONNX file"),
        ("inspect hinet --kernels -3", "argument --kernels: must be a whole number >= 0"),
        (
            "classify a.png --weights hinet-tiny hinet-tiny",
            "hinet-tiny is not a degradation classifier: give ENCODER, then CLASSIFIER",
        ),
        ("export --model hinet -o a.onnx --shapes 1x3x17x16", "17x16 is 32x16"),
        ("restore a.png b.png --model hinet", "no weights of hinet come with the package: give a"),
        ("restore a.png", "arguments are required: target"),
        ("restore a.png b.png --weights none.pth", "none.pth: no such file"),
        ("restore a.png b.png --engine none.engine", "none.engine: no such file"),
        ("restore a.png b.png --engine .", ". is a folder; name the engine file in it"),
        ("restore a.png b.png --engine a --weights b", "--engine excludes --weights"),
        ("restore a.png b.png --engine a --fp16", "--engine excludes --precision"),
        ("restore a.png b.png --tile 0", "--tile takes auto, authors, off or a number of pixels"),
        ("restore a.png b.png --tile -3", "--tile takes auto, authors, off or a number of pixels"),
        (
            "restore a.png b.png --tile x",
            "--tile takes auto, authors, off or a number of pixels up to 65536",
        ),
        ("restore a.png b.png --tile 65537", "not '65537'"),
        (
            f"restore a.png b.png --tile {'9' * 26}",
            "--tile takes auto, authors, off or a number of",
        ),
        (f"restore a.png b.png --tile {'9' * 5000}", f"up to 65536, not '{'9' * 20}'"),
        ("restore a.png b.png --engine a --runner torch", "--engine excludes --runner"),
        ("restore a.png b.png --engine a --no-deploy", "--engine excludes --no-deploy"),
        ("restore a.png b.png --fp16 --bf16", "--bf16: not allowed with argument --fp16"),
        ("restore a.png b.png --fp16 --precision fp32", "not allowed with argument --fp16"),
        ("restore '' b.png", "argument source: an empty path; name a file or a folder"),
        ("restore a.png ''", "argument target: an empty path"),
    ],
)
def test_errors_are_one_line(
    arguments: str,
    message: str,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _fails(arguments, capsys, message)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_pictures(weights: Path, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ["--weights", str(weights), "--runner", "torch"]
    out = str(tmp_path / "out.png")
    _fails(["restore", str(tmp_path / "none.png"), out, *flags], capsys, "none.png")
    _fails(["restore", str(weights), out, *flags], capsys, str(weights))
    _fails(["restore", str(picture), str(tmp_path / "out.xyz"), *flags], capsys, "out.xyz")
    _fails(["restore", str(picture), str(tmp_path / "none/a.png"), *flags], capsys, "none")
    _fails(["restore", str(picture), out, *flags, "--runner", "caffe"], capsys, "unknown runner")
    (tmp_path / "empty").mkdir()
    _fails(["restore", str(tmp_path / "empty"), out, *flags], capsys, "holds no pictures")
    _fails(["restore", str(tmp_path), str(weights), *flags], capsys, "cannot make the folder")
    _fails(["restore", str(tmp_path), out, *flags], capsys, "is a folder, ")
    _fails(["restore", str(picture), str(tmp_path / "empty"), *flags], capsys, "is a folder; name")
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "in.png: not enough memory; restore in smaller tiles: --tile N"),
        (DeviceMemoryError("not enough", Cure.TILES), "not enough; restore in smaller tiles: --"),
    ],
)
def test_without_memory_the_cure_is_named(
    weights: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    error: MemoryError,
    message: str,
) -> None:
    Image.fromarray(data.astronaut()[:20, :30]).save(tmp_path / "in.png")

    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(rr.EngineOnDemand, "__call__", fails)
    command = ["restore", str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    _fails([*command, "--weights", str(weights)], capsys, message)


def test_unexpected_failures_of_the_system_are_one_line(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, message in (
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "MemoryError"),
        (PermissionError(13, "x\ny"), "x"),
    ):
        monkeypatch.setattr(
            networks, "run", lambda options, error=error: (_ for _ in ()).throw(error)
        )
        _fails("networks", capsys, message)


def test_a_broken_recipe(tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "a.toml"
    recipe.write_text('network = "hinet"\nprecision = "fp16"\n')
    _fails(["build", "--recipe", str(recipe)], capsys, "key 'profile' is missing")


@pytest.mark.parametrize(
    "command",
    [
        "export --weights {0} -o {0}",
        "export --weights {0} -o {1}",
        "calibrate --weights {0} --cache {2} -o {0}",
        "calibrate --weights hinet-tiny --cache {2} -o {2}",
        "build --weights {0} -o {0} --runner openvino",
        "build --onnx {0} -o {1} --runner openvino --fp16",
        "build --recipe {0} -o {0} --runner openvino",
        "build --weights {2} --images {3} -o {3}",
    ],
)
def test_the_output_is_no_input(
    weights: Path, picture: Path, tmp_path: Path, capsys: Capture, command: str
) -> None:
    source, link, cache = (tmp_path / name for name in ("a.onnx", "b.onnx", "c.onnx"))
    recipe = 'network = "hinet"\nprecision = "fp16"\n[profile]\n'
    recipe += "".join(f"{name} = [1, 3, 16, 16]\n" for name in ("min", "opt", "max"))
    content = recipe.encode() if "--recipe" in command else weights.read_bytes()
    source.write_bytes(content)
    link.symlink_to(source)
    cache.write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    _fails(
        command.format(source, link, cache, shlex.quote(str(picture))),
        capsys,
        "it is the input; name another file",
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "hinet-tiny",
            "no --weights: hinet-tiny with the package's own weights, for noise and JPEG artefacts",
        ),
        ("mprnet-derain", "random weights of mprnet-derain: give --weights FILE"),
    ],
)
def test_which_weights_a_name_means(name: str, says: str, capsys: Capture) -> None:
    network = network_of(cli.parser().parse_args(["export", "--model", name, "-o", "a.onnx"]))
    assert capsys.readouterr().err == f"{says}\n"
    expected = rr.load_network(name) if "package" in says else rr.create_network(name)
    assert weights_hash(network) == weights_hash(expected)


def test_a_recipe_of_another_network(weights: Path, repository: Path, capsys: Capture) -> None:
    recipe = f"build --recipe {repository / 'engines/nafnet.toml'} --runner openvino"
    message = "is a recipe of nafnet-dcpt, the network is hinet"
    _fails(f"{recipe} --weights {weights}", capsys, message)


def test_another_tensorrt_is_told(
    weights: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise InputError("enough")

    monkeypatch.setattr(backends, "choose", lambda *_, **__: backends.BACKENDS[1])
    monkeypatch.setattr(rr, "build_engine_file", stop)
    assert cli.main(["build", "--weights", str(weights), "--runner", "tensorrt"]) == 2
    told = "no tensorrt here (see: restorert doctor): built by tensorrt_rtx"
    assert capsys.readouterr().err == f"{told}\nrestorert: error: enough\n"


@pytest.mark.slow
def test_build(weights: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.openvino"
    arguments = ["build", "--model", "hinet", "--weights", str(weights), "-o", str(out)]
    shapes = ["--minShapes", "input:1x3x4x4", "--optShapes", "1x3x8x8", "--maxShapes", "2x3x64x64"]
    assert cli.main([*arguments, "--runner", "openvino", "--fp16", *shapes]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == f"{out}\n"
    assert "hinet by openvino" in stderr
    assert "asked fp16, runs " in stderr
    assert sorted(tmp_path.iterdir()) == [out, sidecar_path(out)]
    sidecar = read_sidecar(out)
    assert sidecar.profile == ShapeProfile((1, 3, 4, 4), (1, 3, 8, 8), (2, 3, 64, 64))
    assert sidecar.precision == "fp16"
    assert f"--weights={weights}" in sidecar.rebuild
    assert rr.load_engine(out)(np.zeros((1, 3, 9, 9), np.float32)).shape == (1, 3, 9, 9)


@pytest.mark.slow
def test_build_without_a_path_is_cached(weights: Path, capsys: Capture) -> None:
    arguments = ["build", "--weights", str(weights), "--runner", "openvino", "--shapes", "1x3x8x8"]
    paths = []
    for _ in range(2):
        assert cli.main(arguments) == 0
        paths.append(Path(capsys.readouterr().out.rstrip("\n")))
    assert paths[0] == paths[1]
    assert paths[0].is_file()


@pytest.mark.slow
def test_build_by_a_recipe(
    weights: Path, repository: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "a.openvino"
    recipe = ["build", "--recipe", str(repository / "engines/hinet.toml")]
    overrides = ["--weights", str(weights), "--runner", "openvino", "--shapes", "1x3x16x16"]
    assert cli.main([*recipe, *overrides, "-o", str(out)]) == 0
    sidecar = read_sidecar(out)
    assert sidecar.precision == "fp16"  # the recipe's
    assert sidecar.profile == ShapeProfile.fixed((1, 3, 16, 16))  # the flag's
    # With no flag the recipe's own profile counts, and no network need be named.
    options = cli.parser().parse_args(recipe)
    assert profile_of(options) is None


@pytest.mark.slow
def test_export_and_build_from_onnx(weights: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "a.onnx"
    assert cli.main(["export", "--weights", str(weights), "-o", str(path), "--fp16"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert read_metadata(path)["precision"] == "fp16"
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[2].dim_param == "height"
    # The file's own precision counts where none is asked for.
    _fails(["build", "--onnx", str(path), "--runner", "openvino"], capsys, "is fp16; an engine of")
    fixed = tmp_path / "fixed.onnx"
    shape = ["--shapes", "1x3x16x16", "-o", str(fixed)]
    assert cli.main(["export", "--weights", str(weights), *shape]) == 0
    out = tmp_path / "a.openvino"
    build = ["build", "--onnx", str(fixed), "--runner", "openvino", "--shapes", "1x3x16x16"]
    assert cli.main([*build, "-o", str(out)]) == 0
    assert f"--onnx={fixed}" in read_sidecar(out).rebuild


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; these commands trace the same network."""
    known: dict[str, bytes] = {}

    def export(network: rr.networks.RestorationNetwork, path: Path, **options: object) -> None:
        key = str(sorted(options.items()))
        if key not in known:
            rr.export_onnx(network, path, **options)  # type: ignore[arg-type]
            known[key] = path.read_bytes()
        path.write_bytes(known[key])

    monkeypatch.setattr(quantize, "export_onnx", export)


@pytest.mark.slow
@pytest.mark.usefixtures("traced_once")
def test_calibrate_and_build(
    weights: Path, picture: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = tmp_path / "tiny.int8.onnx"
    command = f"calibrate --weights {weights} -n 4 -o {calibrated}"
    given = ["--images", str(picture.parent), "--noise", "25", "--sensitivity"]
    assert cli.main([*command.split(), *given]) == 0
    out, err = capsys.readouterr()
    *ranking, last = out.splitlines()
    assert last == str(calibrated)
    assert "of the multiply-accumulates in INT8" in err
    assert "not in INT8, reads or writes a picture: 5" in err
    assert re.search(r"condition +drop dB .*\nsigma 25 +-?0\.\d{3} ", err)
    harms = [float(line.split()[0]) for line in ranking]
    assert len(harms) > 10
    assert harms == sorted(harms, reverse=True)
    cache = Path(f"{calibrated}.json")
    found = rr.read_calibration(cache)
    assert list(found.pictures) == [picture.name]
    assert not Path(f"{calibrated}.partial").exists()

    # an edited cache is reused as it is, without pictures
    name = next(iter(found.scales))
    text = cache.read_text().replace(f'"{name}": {found.scales[name]}', f'"{name}": 0.25')
    edited = tmp_path / "edited.json"
    edited.write_text(text)
    again = [part for part in command.split() if part not in ("-n", "4")]
    assert cli.main([*again, "--cache", str(edited)]) == 0
    capsys.readouterr()
    assert rr.read_calibration(cache).scales[name] == 0.25

    # what was calibrated is kept where the gate refuses, and the last file's calibration, too
    strict = [*command.split(), "--images", str(picture.parent), "--limit", "0"]
    kept = f"{calibrated}.refused.json"
    message = _fails(strict, capsys, "int8 is over its limit of 0 dB at '")
    assert f"the calibration is kept in {kept}: restorert calibrate --cache {kept} uses it" in (
        message
    )
    assert rr.read_calibration(kept).scales.keys() == found.scales.keys()
    assert rr.read_calibration(cache).scales[name] == 0.25

    target = tmp_path / "tiny.openvino"
    build = f"build --runner openvino --shapes 1x3x64x96 -o {target}"
    assert cli.main([*build.split(), "--onnx", str(calibrated)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}\n"
    assert "asked int8, runs int8" in err
    assert "convolutions and matrix products run in int8 " in err
    # the same in one command, from pictures
    target.unlink()
    more = ["--weights", str(weights), "--precision", "int8", "--images", str(picture.parent)]
    assert cli.main([*build.split(), *more, "-n", "4"]) == 0
    sidecar = read_sidecar(target)
    assert (sidecar.precision, sidecar.precision_ran) == ("int8", "int8")
    assert f"--onnx={target}.onnx" in sidecar.rebuild


def test_build_measures_half_precision(
    weights: Path,
    picture: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "cpu", lambda: device.Device("cpu", "abacus", "avx512_bf16"))
    recipe = tmp_path / "a.toml"
    recipe.write_text(
        'network = "hinet"\nprecision = "fp16"\n[limits]\nbf16 = 1e-9\n'
        "[profile]\nmin = [1, 3, 16, 16]\nopt = [1, 3, 16, 16]\nmax = [1, 3, 16, 16]\n"
    )
    arguments = f"build --weights {weights} --recipe {recipe} --runner openvino"
    assert cli.main([*arguments.split(), "--images", str(picture.parent)]) == 2
    _, err = capsys.readouterr()
    shown, headings, measured, refused = err.splitlines()
    assert shown == "fp16, run as bf16 by openvino:"
    assert headings.startswith("condition")
    assert re.match(r"given +0\.00", measured)
    assert "bf16 is over its limit of 1e-09 dB at 'given'" in refused


@pytest.mark.parametrize("runner", ["openvino", "torch"])
def test_restore(
    weights: Path, picture: Path, tmp_path: Path, capsys: Capture, runner: str
) -> None:
    out = tmp_path / "out.png"
    flags = ["--weights", str(weights), "--runner", runner]
    assert cli.main(["restore", str(picture), str(out), *flags]) == 0
    # One grey level, where a result lies between two; measured: 0.
    assert np.abs(_pixels(out) - _expected(weights, picture)).max() <= 1
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert f"hinet on {runner}" in stderr


def test_the_library_never_calls_the_command_line(
    weights: Path, picture: Path, tmp_path: Path
) -> None:
    calls = []

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not frame.f_globals.get("__name__", "").startswith("restorert.cli"):
            return
        caller = frame.f_back
        while caller and not caller.f_globals.get("__name__", "").startswith("restorert"):
            caller = caller.f_back
        if caller and not re.match(r"restorert\.(cli|command_line)", caller.f_globals["__name__"]):
            calls.append((caller.f_code.co_name, frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        command = ["restore", str(picture), str(tmp_path / "out.png"), "--weights", str(weights)]
        assert cli.main(command) == 0
    finally:
        sys.setprofile(before)
    assert calls == []


def test_restore_with_an_engine(
    engine: Path, weights: Path, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.png"
    assert cli.main(["restore", str(picture), str(out), "--engine", str(engine)]) == 0
    assert np.abs(_pixels(out) - _expected(weights, picture)).max() <= 1
    large = tmp_path / "large.png"
    Image.fromarray(data.astronaut()[:100, :80]).save(large)
    arguments = ["restore", str(large), str(out), "--engine", str(engine)]
    _fails_after_description(arguments, capsys, "restore in tiles or build for 1x3x100x96")
    assert cli.main([*arguments, "--tile", "64"]) == 0
    assert _pixels(out).shape == (100, 80, 3)


def _fails_after_description(arguments: list[str], capsys: Capture, message: str) -> None:
    capsys.readouterr()
    assert cli.main(arguments) == 2
    described, error = capsys.readouterr().err.splitlines()
    assert described.startswith("hinet on openvino")
    assert error.startswith("restorert: error: ")
    assert message in error


def test_tiles(weights: Path, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    flags = ["--weights", str(weights), "--runner", "torch"]
    whole, tiled, off = (tmp_path / f"{name}.png" for name in ("whole", "tiled", "off"))
    assert cli.main(["restore", str(picture), str(whole), *flags]) == 0
    assert cli.main(["restore", str(picture), str(tiled), *flags, "--tile", "32"]) == 0
    assert cli.main(["restore", str(picture), str(off), *flags, "--tile", "off"]) == 0
    capsys.readouterr()
    for more, message in {
        "--overlap 8": "overlap is 8, but pictures are not restored in tiles; name a tile",
        "--tile 32 --overlap 17": "overlap is 17; it must be from 0 to half of the tile, 16 pixels",
        "--overlap -1": "argument --overlap: must be a whole number from 0",
    }.items():
        command = ["restore", str(picture), str(tmp_path / "x.png"), *flags, *more.split()]
        _fails(command, capsys, message)
    # Statistics depend on the crop, so tiles change this network's result.
    assert np.abs(_pixels(tiled) - _pixels(whole)).max() > 0
    assert np.array_equal(_pixels(off), _pixels(whole))


@pytest.mark.parametrize("runner", ["openvino", "torch"])
def test_a_folder_with_a_bad_picture(
    weights: Path, tmp_path: Path, capsys: Capture, runner: str
) -> None:
    source, target = tmp_path / "in", tmp_path / "new/out"
    source.mkdir()
    for index in range(3):
        Image.fromarray(data.astronaut()[: 20 + index, :30]).save(source / f"{index}.png")
    (source / "1[bold].PNG").write_bytes(b"\x89PNG but not quite")
    (source / "notes.txt").write_text("no picture")
    (source / "folder.png").mkdir()
    flags = ["--weights", str(weights), "--runner", runner]
    assert cli.main(["restore", str(source), str(target), *flags]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    errors = [line for line in stderr.splitlines() if line.startswith("restorert: error: ")]
    assert "1[bold].PNG" in errors[0]
    told = "1 of 4 pictures could not be restored; skipped files of other formats: 1, folders: 1"
    assert errors[1] == f"restorert: error: {told}"
    assert sorted(path.name for path in target.iterdir()) == ["0.png", "1.png", "2.png"]
    for index in range(3):
        found = _pixels(target / f"{index}.png")
        expected = _expected(weights, source / f"{index}.png")
        assert np.abs(found - expected).max() <= 1
    (source / "1[bold].PNG").unlink()
    assert cli.main(["restore", str(source), str(target), *flags]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "3 of 3 pictures restored; skipped files of other formats: 1, folders: 1"


@pytest.mark.slow
def test_self_ensemble(weights: Path, picture: Path, tmp_path: Path, capsys: Capture) -> None:
    plain, target = tmp_path / "plain.png", tmp_path / "out.png"
    command = ["restore", str(picture), str(target), "--weights", str(weights), "--runner", "torch"]
    assert cli.main([*command, "--self-ensemble", "8"]) == 0
    ensemble = rr.SelfEnsemble(rr.build_engine(rr.load_network(weights), runner="torch"), 8)
    rr.restore_image(picture, plain, ensemble)
    assert np.array_equal(_pixels(target), _pixels(plain))
    capsys.readouterr()
    _fails([*command, "--self-ensemble", "3"], capsys, "has 1, 2, 4 or 8 members, not 3")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    av = pytest.importorskip("av")
    path = tmp_path / "in[red].mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 81, 50, "bgr0"
        for at in range(4):
            pixels = data.astronaut()[100 + at : 150 + at, 200:281]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("form", ["weights", "engine"])
def test_video(
    weights: Path, engine: Path, clip: Path, tmp_path: Path, capsys: Capture, form: str
) -> None:
    import av

    target = tmp_path / "out.mkv"
    by = ["--engine", str(engine)] if form == "engine" else ["--weights", str(weights)]
    arguments = ["video", str(clip), str(target), *by, "--codec", "ffv1"]
    if form == "weights":
        arguments += ["--runner", "openvino", "--encoder-option", "g=1"]
    assert cli.main(arguments) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    shapes = "1x3x52x84" if form == "weights" else "1x3x4x4 / 1x3x64x96 / 1x3x64x96"
    assert f", shapes {shapes}\n" in stderr
    assert stderr.splitlines()[-1].startswith("4 frames in ")
    with av.open(str(target)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(found) == 4
    first = tmp_path / "first.png"
    Image.fromarray(data.astronaut()[100:150, 200:281]).save(first)
    assert np.abs(found[0].astype(int) - _expected(weights, first)).max() <= 1


def test_a_damaged_video_is_told(
    weights: Path, clip: Path, tmp_path: Path, capsys: Capture
) -> None:
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 2 // 5])
    assert cli.main(["video", str(clip), str(tmp_path / "a.mkv"), "--weights", str(weights)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"{clip} is damaged: it ends before the end that it states"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--crf", "64"], "argument --crf: must be a whole number from 0 to 63, not '64'"),
        (["--crf", "9", "--codec", "ffv1"], "ffv1 has no crf"),
        (["--encoder-option", "preset"], "--encoder-option takes NAME=VALUE, not 'preset'"),
        (["--encoder-option", "=fast"], "--encoder-option takes NAME=VALUE, not '=fast'"),
        (["--codec", "x264"], "'x264' is no video encoder"),
        (["--tile", "0.5"], "--tile takes auto, authors, off or a number of pixels"),
    ],
)
def test_errors_of_videos(
    weights: Path, clip: Path, tmp_path: Path, capsys: Capture, flags: list[str], message: str
) -> None:
    target = tmp_path / "out.mkv"
    _fails(["video", str(clip), str(target), "--weights", str(weights), *flags], capsys, message)
    assert not target.exists()


def test_interlaced_videos(weights: Path, tmp_path: Path, capsys: Capture) -> None:
    import av

    clip, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with av.open(str(clip), "w") as output:
        options = {"x264-params": "interlaced=1:tff=1:log-level=0"}
        stream = output.add_stream("libx264", rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for at in range(3):
            pixels = data.astronaut()[100 + at : 148 + at, 200:264]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    command = ["video", str(clip), str(target), "--weights", str(weights)]
    _fails(command, capsys, "is flagged as interlaced, which networks take for damage; use --deint")
    assert not target.exists()
    _fails([*command, "--deinterlace", "--progressive"], capsys, "not allowed with argument")
    for flag in ("--deinterlace", "--progressive"):
        assert cli.main([*command, flag]) == 0
        assert capsys.readouterr().err.splitlines()[-1].startswith("3 frames in ")


def test_a_video_that_changes_its_size_late(
    weights: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    from restorert.restore.video import decode

    clip, target, parts = tmp_path / "in.h264", tmp_path / "out.mp4", []
    for size in (48, 32):
        part = tmp_path / f"{size}.h264"
        with av.open(str(part), "w") as output:
            stream = output.add_stream("libx264", rate=24)
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            pixels = data.astronaut()[100 : 100 + size, 200 : 200 + size]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        parts.append(part.read_bytes())
    clip.write_bytes(b"".join(parts))
    command = ["video", str(clip), str(target), "--weights", str(weights)]
    _fails(command, capsys, "changes its size from 48x48 to 32x32; split it there")
    assert not target.exists()
    monkeypatch.setattr(decode, "frames_ahead", lambda container, index: iter(()))
    assert cli.main(command) == 2
    said = f"changes its size from 48x48 to 32x32; the frames before that (1) are in {target}, "
    assert f"restorert: error: {clip} {said}" in capsys.readouterr().err.splitlines()[-1]
    assert target.exists()


def test_a_video_is_no_picture(weights: Path, clip: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["restore", str(clip), str(tmp_path / "out.png"), "--weights", str(weights)]
    _fails(command, capsys, "is a video by its name; use: restorert video")


@pytest.mark.slow
def test_networks(capsys: Capture) -> None:
    assert cli.main(["networks"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in rr.list_networks():
        assert f"│ {name} " in out
    assert "88.67" in out


def test_doctor(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"restorert {rr.__version__}, torch {torch.__version__}" in out
    assert "runner openvino 20" in out
    assert "builds, runs" in out
    assert os.environ["RESTORERT_CACHE"] in out
    for module in ("tensorrt", "tensorrt_rtx", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)

    for place in (tensorrt, openvino):
        monkeypatch.setattr(place, "load_module", place.load_module.__wrapped__)
    assert cli.main(["doctor"]) == 0
    out, _ = capsys.readouterr()
    for package in ("tensorrt", "tensorrt-rtx-cu13", "openvino"):
        assert f"install it with: pip install {package}\n" in out


def test_doctor_without_a_home(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RESTORERT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cli.main(["doctor"]) == 0
    assert "set one with RESTORERT_CACHE" in capsys.readouterr().out


def test_inspect_takes_no_calibration_for_a_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx.json").write_text('{"format": 1, "network": "hinet"}')
    monkeypatch.setattr(inspect, "_inspect_plan", lambda options: 7)
    assert cli.main(["inspect", str(tmp_path / "a.onnx")]) == 7


def test_interrupt(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "run", interrupt)
    assert cli.main(["networks"]) == 130
    assert capsys.readouterr().err == "restorert: stopped\n"


@pytest.mark.parametrize("text", ["auto", "authors", "off", "64"])
def test_tile_flag(text: str) -> None:
    assert tile_of(text) == {"auto": "auto", "authors": "authors", "off": None, "64": 64}[text]
    with pytest.raises(InputError, match="--tile takes auto, authors, off or a number of pixels"):
        tile_of(f"{text}!")


def _process(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_real_process() -> None:
    failed = _process("-m", "restorert.cli", "build", "--model", "hinnet")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith(
        "restorert: error: unknown network 'hinnet'; did you mean hinet"
    )
    assert failed.stderr.count("\n") == 1
    version = _process("-m", "restorert.cli", "--version")
    assert (version.returncode, version.stdout) == (0, f"restorert {rr.__version__}\n")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from restorert.cli.main import main\n"
        "try: main(['build', '--help'])\n"
        "finally: print([m for m in sys.modules if m.startswith(('onnx', 'openvino'))])"
    )
    shown = _process("-c", code)
    assert shown.returncode == 0
    assert "--maxShapes" in shown.stdout
    assert shown.stdout.endswith("[]\n")


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{shlex.quote(sys.executable)} -m restorert.cli networks | head -c 1"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        timeout=120,
    )
    assert done.stderr == b""
