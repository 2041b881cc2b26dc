"""The weights in the package: small, loadable by name, and good at what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

import restorert as rr
from restorert.cli import main as cli
from restorert.pictures.degradations import GaussianNoise, Jpeg
from restorert.pictures.files import read_image, write_image
from restorert.pictures.picture import Picture
from restorert.quantize import shipped_int8
from restorert.weights import shipped_calibrations, shipped_weights, weights_hash

NAMES = sorted(shipped_weights())


def test_hinet_tiny_is_shipped() -> None:
    assert "hinet-tiny" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_small_half_precision_and_of_its_network(name: str) -> None:
    path = shipped_weights()[name]
    assert path.stat().st_size < 4e6
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["restorert.network"] == name
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    network = rr.load_network(name)
    assert network.spec == rr.network_spec(name)
    assert network.checkpoint is not None
    assert network.checkpoint.path == path
    for key, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, tensors[key].float())


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hinet-tiny").write_text("<html>")
    with pytest.raises(rr.RestorertError, match="HTML"):
        rr.load_network("hinet-tiny")
    with pytest.raises(rr.RestorertError, match="hinet-rain: no such file"):
        rr.load_network("hinet-rain")


def picture() -> np.ndarray:
    """Of the coffee: 192x256, never trained on."""
    return (data.coffee()[80:272, 250:506] / 255).astype(np.float32)


def gain(degraded: np.ndarray, clean: np.ndarray) -> float:
    """How many dB the network makes it better."""
    planes = torch.from_numpy(np.ascontiguousarray(degraded.transpose(2, 0, 1)))[None]
    with torch.no_grad():
        restored = rr.load_network("hinet-tiny")(planes)[0].clamp(0, 1)
    psnr = [
        peak_signal_noise_ratio(clean, found, data_range=1.0)
        for found in (restored.permute(1, 2, 0).numpy(), np.clip(degraded, 0, 1))
    ]
    return float(psnr[0] - psnr[1])


@pytest.mark.parametrize(
    ("degradation", "least"),
    [
        # measured: 9.8, 12.0, 13.1, 1.10 and 0.87 dB
        (GaussianNoise((15, 15), 0.0), 9.0),
        (GaussianNoise((25, 25), 0.0), 11.0),
        (GaussianNoise((50, 50), 1.0), 12.0),
        (Jpeg((40, 40), 0.0), 0.9),
        (Jpeg((90, 90), 0.0), 0.6),
    ],
    ids=["sigma 15", "sigma 25", "sigma 50", "jpeg 40", "jpeg 90"],
)
def test_it_restores(degradation: object, least: float) -> None:
    clean = picture()
    degraded = degradation(clean, np.random.default_rng(0))  # type: ignore[operator]
    assert gain(degraded, clean) >= least


@pytest.mark.slow
def test_int8_needs_no_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], int8_saturates: bool
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    network = rr.load_network("hinet-tiny")
    engine = rr.build_engine(network, precision="int8", shape=(1, 3, 192, 256), runner="openvino")
    assert engine.sidecar is not None
    assert engine.sidecar.precision_ran == "int8"
    assert engine.sidecar.precisions["int8"] > 0.85 * sum(engine.sidecar.precisions.values())
    noisy = GaussianNoise((25, 25), 0.0)(picture(), np.random.default_rng(0))
    planes = np.ascontiguousarray(noisy.transpose(2, 0, 1))[None]
    with torch.no_grad():
        expected = network(torch.from_numpy(planes)).numpy()
    clean = picture().transpose(2, 0, 1)[None]
    psnr = [
        peak_signal_noise_ratio(clean, found.clip(0, 1), data_range=1.0)
        for found in (engine(planes), expected)
    ]
    # measured: 0.02 dB less, without VNNI 0.39
    assert psnr[0] > psnr[1] - (1.0 if int8_saturates else 0.1)
    assert engine.fallback is not None
    # The same by the command line, and for other weights not at all.
    path = tmp_path / "tiny.engine"
    command = ["build", "--precision", "int8", "--runner", "openvino", "-o", str(path)]
    assert cli.main([*command, "--model", "hinet-tiny"]) == 0
    assert "runs int8" in capsys.readouterr().err
    assert rr.load_engine(path).runner.precision == "int8"
    with pytest.raises(rr.RestorertError, match="quantize_network makes one"):
        rr.build_engine(rr.create_network("hinet-tiny"), precision="int8", runner="openvino")
    assert cli.main([*command, "--weights", str(tmp_path / "other.pth")]) == 2
    assert "int8 needs pictures to calibrate on" in capsys.readouterr().err
    with pytest.raises(rr.RestorertError, match="the torch runner has no int8"):
        rr.build_engine(network, precision="int8", runner="torch")


def test_the_calibration_is_of_the_weights() -> None:
    for name in shipped_calibrations():
        network = rr.load_network(name)
        shipped = shipped_int8(network)
        assert shipped is not None
        tuned, calibration = shipped
        assert calibration.network == name
        assert calibration.weights_sha256 == weights_hash(tuned)
        assert set(calibration.quality) == set(network.spec.conditions)
        assert shipped_int8(rr.create_network(name)) is None
    assert list(shipped_calibrations()) == ["hinet-tiny"]


def test_restore_without_weights_uses_it_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = np.rint(picture() * 255).astype(np.uint8)
    noisy = GaussianNoise((25, 25), 1.0)(picture(), np.random.default_rng(0))
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_image(source, Picture(np.rint(noisy * 255).astype(np.uint8)))
    assert cli.main(["restore", str(source), str(target), "--runner", "torch"]) == 0
    printed, told = capsys.readouterr()
    assert printed == ""
    assert told.splitlines()[0] == (
        "no --weights: hinet-tiny with the package's own weights, for noise and JPEG artefacts"
    )
    before = peak_signal_noise_ratio(clean, read_image(source).pixels)
    # measured: 11.6 dB
    assert peak_signal_noise_ratio(clean, read_image(target).pixels) > before + 10
