"""NAFNet against the authors' figures, its local window, and the registry's promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import official  # puts the recorders of figures on the path
import onnxruntime
import pytest
import torch
from nafnet import LOCAL_SIZES, load_lively, uneven_picture
from official import assert_equals_official, seeded_picture, variants_recorded
from safetensors.torch import save_file
from seeded import figures

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.nafnet import FAMILY, local_mean, window_bounds

DEEP = ((1, 1, 1, 28), 1, (1, 1, 1, 1))
MANY = ((2, 2, 4, 8), 12, (2, 2, 2, 2))
MINI = {"width": 8, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (1, 1)}
RECORDED = [name for name in variants_recorded("nafnet") if name in rr.list_networks()]


# measured worst: samples 2.9e-6 of outputs up to 5.3, means and deviations 6.4e-8
@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("nafnet", name)


# measured worst: samples 2.4e-6 of outputs up to 4.5, means and deviations 2.9e-8
@pytest.mark.slow
def test_dcpt_equals_the_official_code() -> None:
    assert_equals_official("nafnet_dcpt", "nafnet-dcpt")


def test_a_local_window_equals_the_official_code() -> None:
    """48 pixels, 1.5 times a training picture of 32: larger, smaller and both than pictures."""
    net = load_lively(rr.create_network("nafnet-gopro", **MINI, local_window=48))
    everywhere = load_lively(rr.create_network("nafnet-gopro-global", **MINI))
    with np.load(official.DATA / "nafnet_official.npz") as recorded:
        for height, width in LOCAL_SIZES:
            picture = uneven_picture(height, width)
            with torch.no_grad():
                found, other = figures(net(picture)), figures(everywhere(picture))
            expected = recorded[f"local/{height}x{width}"]
            # measured worst: 1.3e-6 of the largest output, which is 4.8
            atol = 5e-6 * np.abs(expected).max()
            np.testing.assert_allclose(found["samples"], expected, rtol=0, atol=atol)
            # A mistaken window would be seen: pooling over the picture differs by 0.27 and 0.88.
            assert (np.abs(other["samples"] - expected).max() > 1e-2) == (width > 48)


def test_local_mean_equals_the_official_pooling() -> None:
    with np.load(official.DATA / "nafnet_official.npz") as recorded:
        keys = [key for key in recorded if key.startswith("pool/")]
        assert len(keys) == 6
        for key in keys:
            _, size, window = key.split("/")
            picture = seeded_picture(*map(int, size.split("x")))
            expected = np.broadcast_to(recorded[key], picture.shape)
            found = local_mean(picture, window_bounds(picture, int(window)))
            # measured worst: 3.0e-7
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=key)


def test_local_mean_by_hand() -> None:
    rng = np.random.default_rng(0)
    for height, width, window in ((5, 9, 3), (9, 5, 4), (3, 8, 8), (1, 7, 2), (6, 6, 1)):
        x = rng.random((2, 2, height, width)) + 3
        expected = np.empty_like(x)
        for row in range(height):
            for column in range(width):
                corner = []
                for position, size in ((row, height), (column, width)):
                    start = min(max(position - (window - 1) // 2, 0), max(size - window, 0))
                    corner.append(slice(start, min(start + window, size)))
                expected[:, :, row, column] = x[:, :, corner[0], corner[1]].mean((2, 3))
        picture = torch.from_numpy(x)
        bounds = window_bounds(picture, window)
        # measured worst: 7.1e-16
        np.testing.assert_allclose(local_mean(picture, bounds), expected, rtol=3e-15)
        half = local_mean(picture.half(), bounds)
        assert half.dtype == torch.float32
        # measured worst: 3.1e-4, of the input's rounding
        np.testing.assert_allclose(half, expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_file_serves_sizes_below_and_above_the_window(tmp_path: Path, precision: str) -> None:
    net = rr.create_network("nafnet-gopro", **MINI, local_window=24)
    path = rr.export_onnx(net, tmp_path / "local.onnx", precision=precision)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for n, height, width in ((1, 16, 8), (2, 16, 40), (1, 64, 16), (1, 48, 72), (2, 24, 24)):
        x = uneven_picture(height, width, n)
        with torch.no_grad():
            expected = net(x)
        (found,) = session.run(["output"], {"input": x.numpy()})
        # measured worst: fp32 6.6e-7, fp16 1.3e-3
        tolerance = {"fp32": 5e-6, "fp16": 4e-3}[precision]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_openvino_pools_locally() -> None:
    net = rr.create_network("nafnet-gopro", **MINI, local_window=24)
    engine = rr.build_engine(net, shape=(1, 3, 48, 64), runner="openvino")
    oracle = rr.build_engine(net, runner="torch")
    for height, width in ((40, 61), (17, 64), (9, 8)):
        x = seeded_picture(height, width)
        # measured worst: 8.7e-7 of outputs up to 1.4
        np.testing.assert_allclose(engine(x), oracle(x), rtol=0, atol=5e-6)


# Authors' option files: width, enc_blk_nums, middle_blk_num, dec_blk_nums; class NAFNetLocal of
# train_size 256 has a window of int(256 * 1.5).
@pytest.mark.parametrize(
    ("name", "width", "blocks", "window"),
    [
        ("nafnet-dcpt", 64, DEEP, None),
        ("nafnet-gopro", 64, DEEP, 384),
        ("nafnet-gopro-width32", 32, DEEP, 384),
        ("nafnet-gopro-global", 64, DEEP, None),
        ("nafnet-reds", 64, DEEP, 384),
        ("nafnet-sidd", 64, MANY, None),
        ("nafnet-sidd-width32", 32, MANY, None),
    ],
)
def test_variants(name: str, width: int, blocks: tuple[object, ...], window: int | None) -> None:
    spec = rr.network_spec(name)
    config = spec.config
    assert (config.encoder_blocks, config.middle_blocks, config.decoder_blocks) == blocks
    assert (config.width, config.local_window) == (width, window)
    assert config.numbered_decoders == (name == "nafnet-dcpt")
    assert (spec.size_multiple, spec.tile, spec.padding_mode) == (16, None, "reflect")


# papers.toml; the authors' README gives 63.64, 16.25, 63.6 and 16 GMACs, LayerNorm and all.
@pytest.mark.parametrize(
    ("name", "millions", "exact"),
    [
        ("nafnet-dcpt", 67.89, 63.1),
        ("nafnet-gopro", 67.89, 63.1),
        ("nafnet-gopro-width32", 17.11, 16.0),
        ("nafnet-sidd", 115.98, 63.2),
        ("nafnet-sidd-width32", 29.16, 16.0),
    ],
)
def test_counts(name: str, millions: float, exact: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    macs = count_macs(net, (1, 3, 256, 256))
    assert round(count_parameters(net) / 1e6, 2) == millions
    assert round(macs.exact / 1e9, 1) == exact
    assert macs.paper == macs.exact  # no transposed convolution


def test_the_window_of_the_authors_checkpoints(tmp_path: Path) -> None:
    """As shipped: wrapped, and without a word on TLC."""
    small = {"width": 2}
    net = rr.create_network("nafnet-gopro", **small)
    torch.save({"params": net.state_dict()}, tmp_path / "NAFNet-GoPro-width2.pth")
    for name, window in (("nafnet-gopro", 384), ("nafnet-gopro-global", None)):
        loaded = rr.load_network(tmp_path / "NAFNet-GoPro-width2.pth", name=name)
        assert (loaded.spec.name, loaded.spec.config.local_window) == (name, window)
    # A width that nobody published says nothing of its test.
    assert rr.load_network(tmp_path / "NAFNet-GoPro-width2.pth").spec.config.local_window is None
    net = rr.create_network("nafnet-dcpt", **small)
    both = {"params": rr.create_network("nafnet-dcpt", seed=1, **small).state_dict()}
    torch.save({**both, "params_ema": net.state_dict()}, tmp_path / "dcpt_nafnet_5d.pth")
    loaded = rr.load_network(tmp_path / "dcpt_nafnet_5d.pth")
    assert (loaded.spec.name, loaded.checkpoint.key) == ("nafnet-dcpt", "params_ema")
    assert torch.equal(loaded.intro.weight, net.intro.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("NAFNet-GoPro-width32.pth", "nafnet-gopro-width32"),
        ("NAFNet-SIDD-width32.pth", "nafnet-sidd-width32"),
        ("NAFNet-REDS-width64.pth", "nafnet-reds"),
        ("NAFNet-GoPro-width64.pth", "nafnet-gopro"),
        ("dcpt_nafnet_5d.pth", "nafnet-dcpt"),
    ],
)
def test_published_files_by_name(tmp_path: Path, file: str, name: str) -> None:
    torch.save({"params": rr.create_network(name).state_dict()}, tmp_path / file)
    assert rr.load_network(tmp_path / file).spec == rr.network_spec(name)


@pytest.mark.parametrize("window", [None, 16, 384])
def test_a_window_survives_saving(tmp_path: Path, window: int | None) -> None:
    net = rr.create_network("nafnet-reds", **MINI, local_window=window)
    rr.save_network(net, tmp_path / "net.safetensors")
    again = rr.load_network(tmp_path / "net.safetensors")
    assert (again.spec.name, again.spec.config) == ("nafnet-reds", net.spec.config)
    # A name that is asked for has the last word.
    named = rr.load_network(tmp_path / "net.safetensors", name="nafnet-gopro-global")
    assert named.spec.config.local_window is None


@pytest.mark.parametrize(
    ("note", "window"),
    [
        ("{", "refused"),
        ("[]", 384),
        ("1", "refused"),
        ('{"local_window": "wide"}', "refused"),
        ('{"local_window": -1}', "refused"),
        ('{"width": 1e99}', 384),
    ],
)
def test_a_hostile_note(tmp_path: Path, note: str, window: object) -> None:
    net = rr.create_network("nafnet-gopro", **MINI)
    metadata = {"restorert.network": "nafnet-gopro", "restorert.config": note}
    save_file(dict(net.state_dict()), tmp_path / "net.safetensors", metadata=metadata)
    if window == "refused":
        with pytest.raises(rr.RestorertError, match=r"net\.safetensors") as caught:
            rr.load_network(tmp_path / "net.safetensors")
        assert "\n" not in str(caught.value)
    else:
        assert rr.load_network(tmp_path / "net.safetensors").spec.config.local_window == window


@pytest.mark.parametrize(
    "config",
    [
        {"width": 0},
        {"in_channels": 0},
        {"encoder_blocks": ()},
        {"encoder_blocks": (1, 1)},
        {"encoder_blocks": (1, 0, 1, 1)},
        {"encoder_blocks": (1, 1, 1, 2.5)},
        {"encoder_blocks": 4},
        {"encoder_blocks": (1,) * 9, "decoder_blocks": (1,) * 9},
        {"middle_blocks": 0},
        {"local_window": 15},
        {"local_window": 0},
    ],
)
def test_nonsense_is_refused_in_one_line(config: dict[str, object]) -> None:
    with pytest.raises(rr.RestorertError, match="NAFNet") as caught:
        rr.create_network("nafnet-gopro", **config)
    assert "\n" not in str(caught.value)


def test_hostile_tensors_are_no_network() -> None:
    state = dict(rr.create_network("nafnet-dcpt", **MINI).state_dict())
    assert FAMILY.config_from_state_dict(state) is not None
    for changed in (
        {"intro.weight": torch.zeros(3)},
        {"intro.weight": torch.zeros(0, 3, 3, 3)},
        {f"downs.{level}.weight": torch.zeros(1) for level in range(50)},
        {name: None for name in state if name.startswith("middle_blks.")},
        {name: None for name in state if name.startswith("decoder1.")},
        {"downs.0.weight": None},
    ):
        hostile = {k: v for k, v in {**state, **changed}.items() if v is not None}
        assert FAMILY.config_from_state_dict(hostile) is None
    assert FAMILY.config_from_state_dict({}) is None
    digits = {f"encoders.0.{'9' * 5000}.norm1.weight": torch.zeros(1)}
    config = FAMILY.config_from_state_dict({**state, **digits})
    assert config is not None
    assert config.encoder_blocks == (2, 2)


def test_half_weights_keep_the_picture_in_float32() -> None:
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    for window in (None, 8):
        config = {**MINI, "local_window": window}
        expected = rr.create_network("nafnet-gopro", **config)(x)
        # measured worst: fp16 1.8e-3, bf16 1.2e-2
        for dtype, tolerance in ((torch.float16, 6e-3), (torch.bfloat16, 4e-2)):
            out = rr.create_network("nafnet-gopro", **config).to(dtype)(x)
            assert out.dtype == torch.float32
            assert (out - expected).abs().max() < tolerance


def test_grey_pictures() -> None:
    net = rr.create_network("nafnet-sidd", **MINI, in_channels=1)
    assert (net.spec.in_channels, net.spec.out_channels, net.spec.size_multiple) == (1, 1, 4)
    engine = rr.build_engine(net, runner="torch")
    assert engine(torch.rand(1, 1, 7, 9)).shape == (1, 1, 7, 9)
