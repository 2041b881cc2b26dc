"""SRN-Deblur against the authors' figures, and against its definition in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import srn_in_numpy as first_principles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from official import assert_equals_official, load_seeded, seeded_picture, variants_recorded

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.srn import FAMILY, DownConvReLU, UpConvReLU, enlarge

VARIANTS = ["srn-color", "srn-gray", "srn-lstm"]
CHECKPOINT = Path(__file__).parents[1] / "weights/data/srn-miniature"


# measured worst: samples 3.1e-6 of outputs up to 1.5, means and deviations 6.3e-8
@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("srn"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("srn", name, gain=0.8)


def test_every_variant_is_recorded() -> None:
    assert variants_recorded("srn") == VARIANTS


# ---- from first principles -----------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [(16, 16), (32, 48)])
def test_equals_its_definition_in_numpy(name: str, size: tuple[int, int]) -> None:
    net = load_seeded(rr.create_network(name, width=2))
    picture = seeded_picture(*size, batch=2)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    nhwc = picture.permute(0, 2, 3, 1).double().numpy()
    if name == "srn-color":
        expected = first_principles.srn(nhwc, state, recurrent=False)
    else:
        grey = [
            first_principles.srn(nhwc[..., c : c + 1], state, recurrent=name == "srn-lstm")
            for c in range(3)
        ]
        expected = [np.concatenate(channels, axis=3) for channels in zip(*grey, strict=True)]
    found = net.double().stages(picture.double())
    for output, reference in zip(found, expected, strict=True):
        # measured worst: 3.5e-15 of the largest output, which is up to 7.9
        atol = 2e-14 * np.abs(reference).max()
        np.testing.assert_allclose(output.permute(0, 2, 3, 1).numpy(), reference, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [(2, 2), (4, 10), (16, 6)])
def test_strided_convolution_pads_one_before_and_two_behind(size: tuple[int, int]) -> None:
    assert {first_principles.same_padding(n, 5, 2) for n in size} == {(1, 2)}
    conv = DownConvReLU(3, 4).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weights = conv.weight.detach().permute(2, 3, 1, 0).numpy()
    expected = first_principles.conv(
        x.permute(0, 2, 3, 1).numpy(), weights, conv.bias.detach().numpy(), stride=2
    )
    found = conv(x).detach().permute(0, 2, 3, 1).numpy()
    # measured worst: 6.7e-16
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=0, atol=4e-15)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 3)])
def test_transposed_convolution(size: tuple[int, int]) -> None:
    conv = UpConvReLU(4, 3).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    weights = conv.weight.detach().permute(2, 3, 1, 0).numpy()
    expected = first_principles.conv_transpose(
        x.permute(0, 2, 3, 1).numpy(), weights, conv.bias.detach().numpy()
    )
    found = conv(x).detach().permute(0, 2, 3, 1).numpy()
    # measured worst: 1.1e-16
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 6), (33, 8), (180, 320)])
def test_enlarging_is_the_legacy_bilinear_resize(size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, *size)
    expected = first_principles.resize(
        x.permute(0, 2, 3, 1).double().numpy(), 2 * size[0], 2 * size[1]
    )
    found = enlarge(x).permute(0, 2, 3, 1).numpy()
    # measured worst: 1.3e-7 of values up to 5, a rounding
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)
    assert torch.equal(enlarge(x)[..., ::2, ::2], x)


@pytest.mark.parametrize("step", [2, 4])
def test_the_legacy_reduction_takes_pixels(step: int) -> None:
    x = np.random.default_rng(0).random((1, 16, 32, 3))
    reduced = first_principles.resize(x, 16 // step, 32 // step)
    np.testing.assert_array_equal(reduced, x[:, ::step, ::step])


# ---- what the variants are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "per_channel", "recurrent"),
    [("srn-color", False, False), ("srn-gray", True, False), ("srn-lstm", True, True)],
)
def test_variants(name: str, per_channel: bool, recurrent: bool) -> None:
    spec = rr.network_spec(name)
    assert (spec.config.per_channel, spec.config.recurrent) == (per_channel, recurrent)
    # run_model.py: sizes in multiples of 16; model.py: crops of 256, np.pad "edge", astype(uint8)
    assert (spec.config.width, spec.size_multiple, spec.training_patch) == (32, 16, 256)
    assert (spec.padding_mode, spec.rounding, spec.tile) == ("edge", "truncate", None)
    assert (spec.in_channels, spec.out_channels) == (3, 3)


# papers.toml: 6.8 M parameters (srn-color); MACs of the official code, in G. Those of srn-gray are
# three times srn-color's without 2/3 of the channels of enc1_1 and dec1_0.
@pytest.mark.parametrize(
    ("name", "millions", "small", "large"),
    [("srn-color", 6.88, 83.5, 1174), ("srn-gray", 6.88, 249, 3505), ("srn-lstm", 8.06, 268, 3773)],
)
def test_counts(name: str, millions: float, small: float, large: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    assert round(count_parameters(net) / 1e6, 2) == millions
    macs = count_macs(net, (1, 3, 256, 256)).exact / 1e9
    assert float(f"{macs:.3g}") == small
    assert round(count_macs(net, (1, 3, 720, 1280)).exact / 1e9) == large


@pytest.mark.parametrize("name", VARIANTS)
def test_all_stages_are_the_scales(name: str) -> None:
    net = rr.create_network(name, width=2)
    x = torch.rand(2, 3, 32, 48)
    stages = net.stages(x)
    assert [tuple(s.shape) for s in stages] == [(2, 3, 8, 12), (2, 3, 16, 24), (2, 3, 32, 48)]
    assert torch.equal(net(x), stages[-1])


@pytest.mark.parametrize("name", ["srn-gray", "srn-lstm"])
def test_channels_are_restored_one_by_one(name: str) -> None:
    net = rr.create_network(name, width=2)
    x = torch.rand(2, 3, 16, 32)
    alone = torch.cat([net(x[:, c : c + 1]) for c in range(3)], dim=1)
    torch.testing.assert_close(net(x), alone, rtol=0, atol=1e-6)  # measured: 0
    grey = rr.create_network(name, width=2, in_channels=1)
    assert rr.build_engine(grey, runner="torch")(x[:, :1, :9, :20]).shape == (2, 1, 9, 20)


def test_no_gradient_through_the_pictures() -> None:
    def gradient(name: str) -> torch.Tensor | None:
        net = rr.create_network(name, width=2).train().requires_grad_(True)
        first, _, last = net.stages(torch.rand(1, 3, 16, 16))
        return torch.autograd.grad(last.sum(), first, allow_unused=True)[0]

    assert gradient("srn-color") is None
    assert gradient("srn-lstm") is None


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights(name: str, dtype: torch.dtype) -> None:
    net = load_seeded(rr.create_network(name, width=4), gain=0.8)
    x = seeded_picture(32, 32)
    expected = net(x)
    out = net.to(dtype)(x)
    assert out.dtype == torch.float32
    # measured worst, of outputs up to 1.9: fp16 2.5e-3, bf16 1.5e-2
    assert (out - expected).abs().max() < {torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]


def test_the_cell_state_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    from restorert import ops

    cells: list[torch.dtype] = []
    fused = ops.conv_lstm_gates

    def watched(
        gates: torch.Tensor, cell: torch.Tensor, forget_bias: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cells.append(cell.dtype)
        return fused(gates, cell, forget_bias)

    monkeypatch.setattr(ops, "conv_lstm_gates", watched)
    rr.create_network("srn-lstm", width=2).to(torch.bfloat16)(torch.rand(1, 3, 16, 16))
    assert cells == [torch.float32] * 3


# ---- pictures of any size, as integers -----------------------------------------------------------


def test_the_engine_repeats_the_edge_and_truncates() -> None:
    net = load_seeded(rr.create_network("srn-color", width=4), gain=0.8)
    frame = (seeded_picture(20, 30)[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
    grown = np.pad(frame, ((0, 12), (0, 2), (0, 0)), "edge")
    planes = torch.from_numpy(grown).permute(2, 0, 1)[None] / 255
    restored = net(planes)[0].permute(1, 2, 0).numpy()[:20, :30]
    levels = np.clip(restored, 0, 1) * 255
    expected = levels.astype(np.uint8)
    found = rr.build_engine(net, runner="torch")(frame[None])[0]
    # The engine's sums may be in another order, and truncate to another level beside a whole one.
    clear = np.abs(levels - np.rint(levels)) > 1e-3
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert (expected != np.rint(levels))[clear].any()


# ---- checkpoints and configs ---------------------------------------------------------------------


def test_loads_the_authors_format() -> None:
    net = rr.load_network(CHECKPOINT)
    assert (net.spec.name, net.config.width) == ("srn-lstm", 1)
    seeded = load_seeded(rr.create_network("srn-lstm", width=1), gain=0.8)
    x = seeded_picture(16, 32)
    assert torch.equal(net(x), seeded(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_unpublished_widths_are_of_the_variant_they_look_like(name: str, tmp_path: Path) -> None:
    torch.save(rr.create_network(name, width=2).state_dict(), tmp_path / "net.pth")
    assert rr.load_network(tmp_path / "net.pth").spec.name == name


@pytest.mark.parametrize("config", [{"width": 0}, {"in_channels": 0}])
def test_bad_configs_are_one_line(config: dict[str, int]) -> None:
    with pytest.raises(rr.RestorertError, match=r"SRN needs width >= 1 and in_channels >= 1"):
        rr.create_network("srn-color", **config)


@settings(max_examples=100)
@given(
    shapes=st.dictionaries(
        st.sampled_from(
            [
                "enc1_1.weight",
                "enc3_4.conv2.weight",
                "dec2_4.weight",
                "dec1_0.weight",
                "convLSTM.LSTM_conv.weight",
                "x",
            ]
        ),
        st.lists(st.integers(0, 7), max_size=6),
    )
)
def test_hostile_tensors_are_no_srn_or_have_a_config(shapes: dict[str, list[int]]) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = FAMILY.config_from_state_dict(state)
    assert config is None or (config.width > 0 and config.in_channels > 0)
