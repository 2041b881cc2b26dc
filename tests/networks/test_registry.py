"""What every network promises, on miniatures of every variant: iterates the registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import restorert as rr
from restorert import ops
from restorert.engine import ShapeProfile
from restorert.engine.recipe import BuilderOptions
from restorert.errors import RunnerUnavailableError
from restorert.export import inline_functions
from restorert.networks import FAMILIES, NetworkFamily
from restorert.quantize import Patches, measure_quality, quantize
from restorert.quantize.measure import reference_pictures
from restorert.testing import psnr


def _miniatures() -> list[str]:
    """One variant of each distinct config, made small."""
    seen, names = [], []
    for family in FAMILIES:
        for name, spec in family.variants.items():
            config = dataclasses.replace(spec.config, **family.small)
            if (family.name, config) not in seen:
                seen.append((family.name, config))
                names.append(name)
    return names


MINIATURES = _miniatures()
# Exporting and building take seconds each: not for variants whose layers another one has, too.
_LIKE_ANOTHER = {
    "hinet-gopro",
    "hinet-tiny",
    "mprnet-deblur-1stage",
    "mprnet-deblur-2stage",
    "srn-gray",
    "nafnet-gopro-global",
    "restormer-dual-pixel-defocus-deblurring",
    "restormer-real-denoising",
    "restormer-gaussian-gray-denoising-blind",
    "promptir",
    "swinir-denoise-color-15",
    "swinir-jpeg-color-10",
}
# An export of its own: for the network with the transposed convolutions that bfloat16 lacks.
IN_BF16 = ("hinet",)
EXPORTED = [name for name in MINIATURES if name not in _LIKE_ANOTHER]
# TLC and softmax make an export slow or differ in one operator: in float32 alone.
IN_HALF = [name for name in EXPORTED if name not in ("nafnet-gopro", "restormer-deraining")]
ONE_OF_EACH_FAMILY = [
    next(name for name in EXPORTED if name in family.variants) for family in FAMILIES
]
# The ops that are left in the form for TensorRT; those of other networks become plain nodes there.
FUSED = {
    "hinet": {"half_instance_norm"},
    "memorynet": {"memory_read"},
    "srn-lstm": {"conv_lstm_gates"},
    "restormer-deraining": {"layer_norm_2d"},
    "promptir-dcpt": {"layer_norm_2d"},
}
Export = Callable[[str, str], Path]


def _family(name: str) -> NetworkFamily:
    return next(family for family in FAMILIES if name in family.variants)


def miniature(name: str, **config: object) -> rr.networks.RestorationNetwork:
    return rr.create_network(name, **{**_family(name).small, **config})


def _picture(n: int, height: int, width: int, channels: int) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(height))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export each miniature once: tracing takes seconds."""
    folder = tmp_path_factory.mktemp("exported")

    def export(name: str, precision: str) -> Path:
        path = folder / f"{name}-{precision}.onnx"
        if not path.exists():
            rr.export_onnx(miniature(name), path, precision=precision)
        return path

    return export


def _run_onnx(path: Path, x: torch.Tensor) -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    # measured, of outputs up to 1.4: ONNX Runtime 4.3e-7 (hinet, srn-color, nafnet-dcpt,
    # nafnet-gopro, restormer-dcpt), OpenVINO 7.2e-7 (hinet, nafnet-dcpt, restormer-dcpt)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", EXPORTED)
def test_one_dynamic_onnx_file_gives_the_picture_at_every_size(name: str, exported: Export) -> None:
    net = miniature(name)
    m = net.spec.size_multiple
    for n, rows, columns in ((1, 1, 1), (1, 3, 2), (2, 2, 5)):
        x = _picture(n, rows * m, columns * m, net.spec.in_channels)
        with torch.no_grad():
            expected = net(x)
        assert expected.shape == (n, net.spec.out_channels, rows * m, columns * m)
        _close(_run_onnx(exported(name, "fp32"), x), expected)


@pytest.mark.parametrize("name", IN_HALF)
def test_half_precision_keeps_the_picture(name: str, exported: Export) -> None:
    net = miniature(name)
    m = net.spec.size_multiple
    x = _picture(1, 3 * m, 4 * m, net.spec.in_channels)
    with torch.no_grad():
        expected = net(x)
        found = net.to(torch.bfloat16)(x)
    assert found.dtype == torch.float32
    assert psnr(found, expected) > 45  # measured worst: 51.1, of nafnet-dcpt
    # measured: 70.4, of nafnet-dcpt
    assert psnr(_run_onnx(exported(name, "fp16"), x), expected) > 60


@pytest.mark.parametrize("name", EXPORTED)
def test_the_file_calls_fused_ops_and_passes_the_checker(name: str, exported: Export) -> None:
    path = exported(name, "fp32")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", ops.DOMAIN}
    fused = {node.op_type for node in model.graph.node if node.domain == ops.DOMAIN}
    assert fused == FUSED.get(name, set())
    plain = onnx.load(inline_functions(path, path.with_suffix(".inlined")))
    assert len(model.graph.node) < len(plain.graph.node) or not fused
    assert not [n for n in plain.graph.node if n.op_type in ("Loop", "Scan", "If")]


@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, "fp32") for name in EXPORTED]
    + [(name, "fp16") for name in IN_HALF]
    + [(name, "bf16") for name in IN_BF16],
)
def test_tensorrt_rtx_builds_it(
    name: str, precision: str, exported: Export, tmp_path: Path
) -> None:
    path = exported(name, precision)
    spec = miniature(name).spec
    m, c = spec.size_multiple, spec.in_channels
    try:
        engine = rr.build_engine_file(
            path,
            tmp_path / "mini.engine",
            precision=precision,
            profile=ShapeProfile((1, c, m, m), (1, c, 4 * m, 4 * m), (2, c, 8 * m, 8 * m)),
            runner="tensorrt_rtx",
            options=BuilderOptions(compute_capabilities=("8.9",)),
        )
    except RunnerUnavailableError as error:
        pytest.skip(str(error))
    assert engine.stat().st_size > 0


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_int8(
    name: str,
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    int8_saturates: bool,
) -> None:
    net = miniature(name)
    m, c = net.spec.size_multiple, net.spec.in_channels
    half = exported(name, "fp16")
    monkeypatch.setattr(
        quantize, "export_onnx", lambda _, path, **__: path.write_bytes(half.read_bytes())
    )
    pictures = tuple(_picture(1, 3 * m, (4 + i) * m, c).numpy() for i in range(3))
    report = rr.quantize_network(net, tmp_path / "int8.onnx", Patches.given(pictures), gate=False)
    assert report.int8_layers
    # worst seen, on photographs: 0.022 (swinir)
    assert report.quality["given"].residual_error < 0.06
    onnx.checker.check_model(onnx.load(report.path), full_check=True)
    shape = (1, c, 4 * m, 8 * m)
    engine = rr.build_engine(report.path, precision="int8", shape=shape, runner="openvino")
    assert engine.sidecar
    assert engine.sidecar.precisions["int8"] > 0
    found = [engine(x) for x in pictures]
    expected = reference_pictures(net, pictures)
    on_openvino = measure_quality(found, expected, pictures)
    # worst seen, on photographs: 0.027 (swinir), rounding the rest to bf16; without VNNI, on the
    # noise of here, 0.113 (hinet)
    assert on_openvino.residual_error < (0.25 if int8_saturates else 0.06)
    try:
        rr.build_engine_file(
            report.path,
            tmp_path / "int8.engine",
            precision="int8",
            profile=ShapeProfile((1, c, m, m), (1, c, 4 * m, 4 * m), (2, c, 8 * m, 8 * m)),
            runner="tensorrt_rtx",
            options=BuilderOptions(compute_capabilities=("8.9",)),
        )
    except RunnerUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_openvino_runs_it_at_sizes_that_need_padding(name: str, exported: Export) -> None:
    net = miniature(name)
    m = net.spec.size_multiple
    shape = (2, net.spec.in_channels, 4 * m, 4 * m)
    # In deploy form, which takes an export of its own, where there is one.
    source = net if net.rewrites else exported(name, "fp32")
    engine = rr.build_engine(source, shape=shape, runner="openvino")
    oracle = rr.build_engine(net, runner="torch")
    for n, height, width in ((1, 2 * m + 1, 3 * m - 1), (2, m, 4 * m)):
        shape = (n, net.spec.in_channels, height, width)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        _close(engine(x), oracle(x))


@pytest.mark.parametrize("name", MINIATURES)
def test_strided_pictures(name: str) -> None:
    net = miniature(name)
    m = net.spec.size_multiple
    x = _picture(2, 2 * m, 6 * m, net.spec.in_channels)
    with torch.no_grad():
        expected = net(x[..., ::2].contiguous())
        for view in (x[..., ::2], x[..., ::2].contiguous(memory_format=torch.channels_last)):
            # measured worst: 3.6e-7 of outputs up to 1.8
            torch.testing.assert_close(net(view), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", MINIATURES)
def test_trains(name: str) -> None:
    net = miniature(name).train().requires_grad_(True)
    m = net.spec.size_multiple
    net(_picture(2, 2 * m, 2 * m, net.spec.in_channels)).square().mean().backward()
    for parameter_name, parameter in net.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), parameter_name
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", MINIATURES)
def test_saved_and_loaded_again(name: str, tmp_path: Path) -> None:
    net = miniature(name)
    rr.save_network(net, tmp_path / "net.safetensors")
    again = rr.load_network(tmp_path / "net.safetensors")
    assert (again.spec.name, again.spec.config) == (name, net.spec.config)
    m = net.spec.size_multiple
    x = _picture(1, m, m, net.spec.in_channels)
    with torch.no_grad():
        assert torch.equal(net(x), again(x))
    # As the authors ship it: wrapped, from a data-parallel module, without a name.
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    unnamed = rr.load_network(tmp_path / "net.pth")
    assert unnamed.spec.family == net.spec.family
    assert _family(name).same_tensors(unnamed.spec.config, net.spec.config)


@pytest.mark.parametrize("name", rr.list_networks())
def test_sizes_are_read_off_the_tensors(name: str) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    found = {family.name: family.config_from_state_dict(net.state_dict()) for family in FAMILIES}
    assert _family(name).same_tensors(found.pop(net.spec.family), net.spec.config)
    assert not any(found.values()), "taken for another family"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_has_a_recipe_and_a_whole_spec(
    family: NetworkFamily, repository: Path
) -> None:
    recipes = list((repository / "engines").glob("*.toml"))
    text = "\n".join(path.read_text() for path in recipes)
    assert any(f'network = "{name}"' in text for name in family.variants)
    for spec in family.variants.values():
        assert spec.family == family.name
        assert spec.task
        assert spec.paper
        assert spec.weights_license
        assert spec.training_patch is None or spec.training_patch % spec.size_multiple == 0


def test_random_bytes_of_weights_are_the_same_everywhere() -> None:
    """Seeded weights do not depend on what else was made before."""
    first = miniature(MINIATURES[0])
    for name in MINIATURES:
        miniature(name)
    again = miniature(MINIATURES[0])
    assert all(
        np.array_equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
