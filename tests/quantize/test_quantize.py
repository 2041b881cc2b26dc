"""From a network and pictures to an INT8 file and its engines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import restorert as rr
from restorert.engine import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.engine.sidecar import read_sidecar
from restorert.errors import (
    CalibrationError,
    InputError,
    QualityError,
    RunnerUnavailableError,
)
from restorert.export import read_metadata
from restorert.quantize import (
    METHODS,
    Patches,
    QuantizationReport,
    measure_quality,
    quality_of,
    read_calibration,
)
from restorert.quantize import quantize as module
from restorert.quantize.bias_correction import correct_biases
from restorert.quantize.measure import reference_pictures
from restorert.quantize.qdq import insert_qdq
from restorert.quantize.session import onnx_session, run

Network = rr.networks.RestorationNetwork

pytestmark = pytest.mark.usefixtures("exported_once")


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory,
    network: Network,
    patches: Patches,
    half_file: Path,
) -> QuantizationReport:
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            module,
            "export_onnx",
            lambda _, path, **__: path.write_bytes(half_file.read_bytes()),
        )
        return rr.quantize_network(network, path, patches, gate=False, sensitivity=True)


def _residual_error(
    found: list[np.ndarray], network: Network, inputs: tuple[np.ndarray, ...]
) -> float:
    expected = reference_pictures(network, inputs)
    return measure_quality(found, expected, inputs).residual_error


def test_the_file_is_close_to_float32(
    report: QuantizationReport, network: Network, patches: Patches
) -> None:
    model = onnx.load(report.path)
    onnx.checker.check_model(model, full_check=True)
    inputs = patches.judged.inputs
    error = _residual_error(run(onnx_session(model), inputs), network, inputs)
    assert error < 0.03  # measured: 0.0218
    quality = report.quality["given"]
    assert quality.residual_error == pytest.approx(error, rel=1e-6)
    assert abs(quality.worst_shift) < 0.4  # of 255; measured: 0.13
    assert report.int8_share > 0.94  # measured: 0.949
    assert set(report.kept.values()) == {"reads or writes a picture"}
    metadata = read_metadata(report.path)
    assert metadata["precision"] == "int8"
    assert metadata["int8_share"] == round(report.int8_share, 4)
    # sizes are free
    (small,) = run(onnx_session(model), [patches.inputs[0][:, :, :8, :12]])
    assert small.shape == (1, 3, 8, 12)


def test_sensitivity_ranks_every_layer(report: QuantizationReport) -> None:
    assert set(report.sensitivity) == set(report.int8_layers)
    harms = list(report.sensitivity.values())
    assert harms == sorted(harms, reverse=True)
    # one layer harms less than all; measured: 0.53 of it
    together = report.quality["given"]
    assert 0 < harms[-1] < harms[0] < together.drop / together.allowed(1.0)


def test_the_same_calibration_twice(
    report: QuantizationReport, network: Network, patches: Patches, tmp_path: Path
) -> None:
    again = rr.calibrate(network, patches)
    again.write(tmp_path / "a.json")
    dataclasses.replace(report.calibration, quality={}).write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    # and the file from the cache alone is the same file
    read = rr.read_calibration(tmp_path / "a.json")
    other = rr.quantize_network(network, tmp_path / "a.onnx", calibration=read)
    assert not other.quality
    first, second = (onnx.load(path).graph for path in (report.path, other.path))
    assert [str(node) for node in first.node] == [str(node) for node in second.node]
    for one, two in zip(first.initializer, second.initializer, strict=True):
        assert one.name == two.name
        expected, found = onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(two)
        if one.name.endswith(".corrected_bias"):
            # corrections are kept to 6 digits, and may round to the next float16; measured: 0
            np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-6, err_msg=one.name)
        else:
            assert np.array_equal(found, expected), one.name


def test_what_is_kept_beside_the_file(
    network: Network, patches: Patches, report: QuantizationReport, tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    refused = tmp_path / "a.onnx.refused.json"

    def quantize(**options: Any) -> None:
        rr.quantize_network(network, path, patches, save_calibration=True, **options)

    def stop(what: str, share: float) -> None:
        if what == "correcting biases":  # the ranges are known
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(progress=stop)
    assert not list(tmp_path.iterdir())
    with pytest.raises(QualityError) as error:
        quantize(limit=1e-9)
    assert error.value.saved == refused
    assert [entry.name for entry in tmp_path.iterdir()] == [refused.name]
    with pytest.raises(QualityError) as again:
        quantize(limit=1e-9, calibration=read_calibration(refused))
    assert again.value.saved is None
    quantize(gate=False)
    saved = tmp_path / "a.onnx.json"
    assert saved.read_text() == refused.read_text() == report.calibration.to_json()
    assert set(tmp_path.iterdir()) == {path, saved, refused}
    assert path.read_bytes() == report.path.read_bytes()


def test_a_report_is_what_a_user_wants_to_know(report: QuantizationReport) -> None:
    first, kept, headings, quality = str(report).splitlines()
    layers = len(report.int8_layers)
    assert first == (
        f"hinet: {report.int8_share:.1%} of the multiply-accumulates in INT8, "
        f"{layers} of {layers + len(report.kept)} layers"
    )
    assert kept.startswith(f"not in INT8, reads or writes a picture: {len(report.kept)} (")
    assert headings.split()[:3] == ["condition", "drop", "dB"]
    found = report.quality["given"]
    assert quality.split()[:3] == ["given", f"{found.drop:.3f}", f"{found.worst_drop:.3f}"]
    assert report.calibration.quality["given"]["drop_db"] == round(found.drop, 4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method: str, network: Network, patches: Patches, tmp_path: Path) -> None:
    report = rr.quantize_network(
        network, tmp_path / "a.onnx", patches, method=method, gate=False, bias_correction=False
    )
    assert report.quality["given"].residual_error < 0.04  # measured worst: 0.0241, of minmax
    assert report.calibration.method == method
    assert not report.calibration.corrections


def test_bias_correction_takes_off_the_mean(
    network: Network, patches: Patches, tmp_path: Path
) -> None:
    """Of scales that clip much, and so darken."""
    calibration = rr.calibrate(network, patches, bias_correction=False)
    clipped = dataclasses.replace(
        calibration, scales={name: scale / 3 for name, scale in calibration.scales.items()}
    )
    model = module._Model(network, "tensorrt", True, None)
    chosen = model.chosen(model.default_kept)
    corrections = correct_biases(model.wide, chosen, clipped.scales, patches.inputs)
    expected = reference_pictures(network, patches.inputs)
    shifts = []
    for found in ({}, corrections):
        quantized = insert_qdq(model.wide, chosen, clipped.scales, found)
        pictures = run(onnx_session(quantized), patches.inputs)
        difference = np.stack(pictures).astype(float) - np.stack(expected)
        shifts.append(np.abs(difference.mean(axis=(0, 1, 3, 4))).max() * 255)
    # measured: 3.00 and 0.18 of 255
    assert shifts[0] > 1
    assert shifts[1] < shifts[0] / 5


def test_keep_fp16_auto_keeps_the_fewest(
    network: Network,
    patches: Patches,
    report: QuantizationReport,
    tmp_path: Path,
) -> None:
    limit = report.quality["given"].drop / 2
    path = tmp_path / "a.onnx"
    with pytest.raises(QualityError, match=r"int8 is over its limit of .*: drop") as refused:
        rr.quantize_network(network, path, patches, calibration=report.calibration, limit=limit)
    assert not path.exists()
    assert refused.value.calibration.scales == report.calibration.scales
    auto = rr.quantize_network(
        network,
        path,
        patches,
        calibration=report.calibration,
        limit=limit,
        keep_fp16="auto",
        gate=False,
    )
    harmful = [name for name, reason in auto.kept.items() if reason == "harms most"]
    assert harmful == list(report.sensitivity)[: len(harmful)]
    assert 0 < len(harmful) < len(report.int8_layers)
    assert auto.int8_share < report.int8_share
    assert auto.quality["given"].drop < report.quality["given"].drop
    assert set(auto.calibration.keep) == set(harmful)


def test_layers_kept_by_name(
    network: Network,
    patches: Patches,
    report: QuantizationReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = report.int8_layers[3]
    kept = rr.quantize_network(
        network,
        tmp_path / "a.onnx",
        calibration=report.calibration,
        keep_fp16=[name],
    )
    assert kept.kept[name] == "asked for"
    assert name not in kept.int8_layers
    with pytest.raises(InputError, match=f"has no layer '{name}x'; it has {name}"):
        rr.quantize_network(
            network,
            tmp_path / "a.onnx",
            calibration=report.calibration,
            keep_fp16=[f"{name}x"],
        )
    # Before the pictures are looked at; and of no near name the first.
    monkeypatch.setattr(module._Model, "calibrate", lambda *_: pytest.fail("calibrated"))
    with pytest.raises(InputError, match=r"no layer '###'; it has \S+, \S+, \S+, ...: \d+ layers"):
        rr.quantize_network(network, tmp_path / "a.onnx", patches, keep_fp16=["###"])


def test_calibrations_of_others(
    network: Network, report: QuantizationReport, tmp_path: Path
) -> None:
    own = report.calibration
    name = report.int8_layers[0]
    scales = dict(own.scales)
    scales.pop(next(iter(scales)))
    for change, message in (
        ({"network": "srn-color"}, "is of srn-color, not of hinet; quantize_network makes one"),
        ({"weights_sha256": "00"}, "is of other weights"),
        ({"scales": scales}, "has no scale of"),
        ({"corrections": {name: np.zeros(3)}}, f"corrects 3 channels of {name!r}"),
        ({"corrections": {"none": np.zeros(3)}}, "'none', which has none"),
        ({"scales": own.scales | {"none": 0.1}}, "a scale of 'none', which no layer reads"),
        (
            {"corrections": {name: own.corrections[name] * 0 + 65504}},
            f"corrects {name!r} to a bias that float16 cannot hold",
        ),
    ):
        with pytest.raises(CalibrationError, match=message):
            rr.quantize_network(
                network,
                tmp_path / "a.onnx",
                calibration=dataclasses.replace(own, **change),
            )


def test_another_network_is_refused_before_the_export(
    network: Network,
    report: QuantizationReport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_Model", lambda *_: pytest.fail("exported"))
    for change in ({"network": "srn-color"}, {"weights_sha256": "00"}):
        other = dataclasses.replace(report.calibration, **change)  # type: ignore[arg-type]
        with pytest.raises(CalibrationError, match="quantize_network makes one"):
            rr.quantize_network(network, tmp_path / "a.onnx", calibration=other)


def test_arguments(network: Network, patches: Patches, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(InputError, match="needs pictures to calibrate on"):
        rr.quantize_network(network, path)
    with pytest.raises(InputError, match="unknown method"):
        rr.quantize_network(network, path, patches, method="guess")
    with pytest.raises(InputError, match="No such folder"):
        rr.quantize_network(network, tmp_path / "none/a.onnx", patches)
    with pytest.raises(InputError, match="limit must be dB >= 0"):
        rr.quantize_network(network, path, patches, limit=float("nan"))
    with pytest.raises(InputError, match="no patches"):
        rr.calibrate(network, Patches.given([]))
    with pytest.raises(InputError, match="int8 needs an ONNX file calibrated on pictures"):
        rr.export_onnx(network, path, precision="int8")
    with pytest.raises(InputError, match="an int8 engine is built from a calibrated ONNX file"):
        rr.build_engine(network, precision="int8", runner="openvino")


# measured: 8.0e-5 and 4.4e-3 dB, 79.3 and 61.9 dB
@pytest.mark.parametrize(("precision", "worst", "psnr"), [("fp16", 3e-4, 74), ("bf16", 0.015, 57)])
def test_half_precisions(
    network: Network, patches: Patches, precision: str, worst: float, psnr: float
) -> None:
    quality = quality_of(network, precision, patches)["given"]
    assert 0 < quality.drop < worst
    assert quality.psnr > psnr


def test_openvino_runs_it_in_int8(
    report: QuantizationReport,
    network: Network,
    patches: Patches,
    tmp_path: Path,
    int8_saturates: bool,
) -> None:
    pytest.importorskip("openvino")
    path = rr.build_engine_file(
        report.path,
        tmp_path / "a.openvino",
        precision="int8",
        shape=(1, 3, 48, 48),
        runner="openvino",
    )
    sidecar = read_sidecar(path)
    assert (sidecar.precision, sidecar.precision_ran) == ("int8", "int8")
    assert sidecar.precisions["int8"] > 0.8 * sum(sidecar.precisions.values())  # measured: 0.89
    assert "--precision=int8" in sidecar.rebuild
    assert sidecar.network["int8_share"] == round(report.int8_share, 4)
    engine = rr.load_engine(path)
    assert ", int8, " in engine.describe()
    found = [engine(x) for x in patches.inputs]
    # measured: 0.0222, without VNNI 0.083 and 0.106; a sign lost in a concatenation gave 0.5
    limit = 0.25 if int8_saturates else 0.04
    assert _residual_error(found, network, patches.inputs) < limit
    with pytest.raises(InputError, match=r"is int8; an engine of fp16 on openvino needs one of "):
        rr.build_engine_file(report.path, precision="fp16", runner="openvino")


def test_an_int8_engine_of_another_file(half_file: Path) -> None:
    with pytest.raises(
        InputError, match=r"is fp16; .* needs one of int8; quantize_network makes one"
    ):
        rr.build_engine_file(half_file, precision="int8", runner="openvino")


def test_tensorrt_rtx_has_int8_convolutions(report: QuantizationReport, tmp_path: Path) -> None:
    try:
        path = rr.build_engine_file(
            report.path,
            tmp_path / "a.engine",
            precision="int8",
            profile=ShapeProfile((1, 3, 4, 4), (1, 3, 48, 48), (2, 3, 64, 64)),
            runner="tensorrt_rtx",
            options=BuilderOptions(compute_capabilities=("8.9",)),
        )
    except RunnerUnavailableError as error:
        pytest.skip(str(error))
    sidecar = read_sidecar(path)
    assert sidecar.precision_ran == "int8"
    assert sidecar.layers.get("INT8", 0) > 0
    assert sidecar.precisions["int8"] > 0.8 * sum(sidecar.precisions.values())  # measured: 0.83
