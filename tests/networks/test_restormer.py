"""Restormer against the authors' figures, option files and formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from official import assert_equals_official, variants_recorded
from torch import Tensor
from torch.nn import functional as F

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.restormer import (
    FAMILY,
    ChannelAttention,
    RestormerConfig,
)

SMALL = dict(FAMILY.small)


# measured worst: samples 6.8e-5 of outputs up to 22, means and deviations 3.2e-6
@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("restormer"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("restormer", name, tolerance=1e-4)


def test_every_distinct_config_has_figures() -> None:
    recorded = {rr.network_spec(name).config for name in variants_recorded("restormer")}
    assert recorded == {spec.config for spec in FAMILY.variants.values()}


# The authors' option files, network_g; DCPT's is the default of its class. All have dim 48,
# num_blocks 4, 6, 6, 8, heads 1, 2, 4, 8, ffn_expansion_factor 2.66 and four refinement blocks.
OPTIONS = {
    "restormer-dcpt": (3, "bias_free", False),
    "restormer-deraining": (3, "with_bias", False),
    "restormer-motion-deblurring": (3, "with_bias", False),
    "restormer-defocus-deblurring": (3, "with_bias", False),
    "restormer-dual-pixel-defocus-deblurring": (6, "with_bias", True),
    "restormer-real-denoising": (3, "bias_free", False),
    **{
        f"restormer-gaussian-{colour}-denoising-{level}": (channels, "bias_free", False)
        for colour, channels in (("color", 3), ("gray", 1))
        for level in ("blind", "sigma15", "sigma25", "sigma50")
    },
}


def test_variants() -> None:
    assert set(OPTIONS) == set(FAMILY.variants)
    for name, (channels, norm, dual_pixel) in OPTIONS.items():
        spec = rr.network_spec(name)
        config = spec.config
        assert (config.in_channels, config.norm, config.dual_pixel) == (channels, norm, dual_pixel)
        assert (config.width, config.blocks, config.heads) == (48, (4, 6, 6, 8), (1, 2, 4, 8))
        assert (config.expansion, config.refinement_blocks) == (2.66, 4)
        assert config.out_channels == (3 if dual_pixel else channels)
        assert (spec.in_channels, spec.out_channels) == (config.in_channels, config.out_channels)
        assert (spec.size_multiple, spec.padding_mode) == (8, "reflect")
        assert config.dcpt == (name == "restormer-dcpt")
        assert config.norm_eps == (1e-6 if config.dcpt else 1e-5)
        assert config.attention == ("relu" if config.dcpt else "softmax")


# papers.toml: parameters of the official code, and its MACs at 256x256. The authors multiply
# queries with keys and attention with values within the heads, and project. Here queries are
# multiplied with the keys of all heads, and values with the projection times the attention.
def test_counts() -> None:
    with torch.device("meta"):
        net = rr.create_network("restormer-dcpt")
    assert round(count_parameters(net) / 1e6, 2) == 26.11
    macs = count_macs(net, (1, 3, 256, 256)).exact
    config, theirs, ours = net.config, 0, 0
    # Level, channels in units of the width, blocks: the encoder, the decoder, the refinement.
    places = [(level, 2**level, config.blocks[level]) for level in range(4)]
    places += [(2, 4, config.blocks[2]), (1, 2, config.blocks[1]), (0, 2, config.blocks[0])]
    for level, wide, count in [*places, (0, 2, config.refinement_blocks)]:
        channels, pixels = config.width * wide, 256 * 256 // 4**level
        square = channels * channels
        theirs += count * (2 * square // config.heads[level] + square) * pixels
        ours += count * (2 * square * pixels + square * channels)
    assert round(macs / 1e9, 1) == 151.8
    assert round((macs - ours + theirs) / 1e9, 1) == 154.9
    for name, millions in (("restormer-deraining", 26.13), ("restormer-real-denoising", 26.11)):
        with torch.device("meta"):
            assert round(count_parameters(rr.create_network(name)) / 1e6, 2) == millions


def _as_published(module: ChannelAttention, x: Tensor) -> Tensor:
    """MDTA as equation 1 of the paper has it: normalised pictures, then products."""
    n, channels, height, width = x.shape
    q, k, v = (
        module.qkv_dwconv(module.qkv(x)).view(n, 3, module.heads, -1, height * width).unbind(1)
    )
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    logits = torch.einsum("nhcp,nhdp->nhcd", q, k) * module.temperature
    weights = logits.softmax(-1) if module.kind == "softmax" else logits.relu()
    out = torch.einsum("nhcd,nhdp->nhcp", weights, v).reshape(n, channels, height, width)
    result: Tensor = module.project_out(out)
    return result


@pytest.mark.parametrize("kind", ["softmax", "relu"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-7, 0.0])
def test_attention_is_the_published_one(kind: str, heads: int, scale: float) -> None:
    module = ChannelAttention(16, heads, kind).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(module.temperature)
    with torch.no_grad():
        # Norms near and below the epsilon of the authors' normalisation, too.
        for x in (torch.randn(2, 16, 6, 5).double() * scale, torch.randn(1, 16, 1, 1).double()):
            found, expected = module(x), _as_published(module, x)
            # measured worst: 3.8e-16 of the largest
            largest = float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-15 * largest)


def test_half_precision_does_not_overflow_on_large_pictures() -> None:
    """Sums over pixels exceed float16's 65504 here, and products of activations do."""
    net = rr.create_network("restormer-dcpt", **SMALL)
    net.load_state_dict({k: v * 4 if "qkv" in k else v for k, v in net.state_dict().items()})
    x = torch.rand(1, 3, 256, 264, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sums = net.encoder_level1.body[0].norm1(net.patch_embed(x))
        sums = net.encoder_level1.body[0].attn.qkv_dwconv(net.encoder_level1.body[0].attn.qkv(sums))
        assert sums.square().sum(dim=(2, 3)).max() > 65504
        expected = net(x)
        residual = (expected - x).square().mean().sqrt()
        for dtype, most in ((torch.float16, 1e-2), (torch.bfloat16, 8e-2)):
            found = net.to(dtype)(x)
            assert found.dtype == torch.float32
            # measured worst: fp16 3.6e-3, bf16 2.6e-2
            assert (found - expected).square().mean().sqrt() / residual < most


def test_two_views_give_one_picture_that_neither_is_added_to() -> None:
    net = rr.create_network("restormer-dual-pixel-defocus-deblurring", **SMALL)
    assert (net.spec.in_channels, net.spec.out_channels) == (6, 3)
    net.output.weight.zero_()
    assert torch.equal(net(torch.rand(2, 6, 8, 16)), torch.zeros(2, 3, 8, 16))
    engine = rr.build_engine(net, runner="torch")
    assert engine(torch.rand(1, 6, 9, 13)).shape == (1, 3, 9, 13)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 7}, "even width >= 2, not 7"),
        ({"width": 0}, "even width >= 2, not 0"),
        ({"blocks": (1, 1, 1)}, "blocks of four levels"),
        ({"blocks": (1, 1, 0, 1)}, "blocks of four levels"),
        ({"refinement_blocks": 0}, "refinement_blocks, each >= 1"),
        ({"heads": (1, 2, 4)}, "heads of four levels"),
        ({"heads": (1, 2, 4, 5)}, "divide its channels"),
        ({"heads": (0, 2, 4, 8)}, "divide its channels"),
        ({"expansion": 0.0}, "expansion between"),
        ({"expansion": math.nan}, "expansion between"),
        ({"expansion": math.inf}, "expansion between"),
        ({"norm": "batch"}, "norms with_bias and bias_free, not 'batch'"),
        ({"in_channels": 0, "out_channels": 0}, "needs in_channels"),
        ({"in_channels": 4}, "of out_channels=3 needs in_channels=3, not 4"),
        ({"dual_pixel": True}, "for dual pixels of out_channels=3 needs in_channels=6, not 3"),
    ],
)
def test_nonsense_is_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(rr.RestorertError) as caught:
        rr.create_network("restormer-dcpt", **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        RestormerConfig(width=8, blocks=(1, 2, 1, 3), refinement_blocks=2, heads=(1, 2, 2, 4)),
        RestormerConfig(width=4, blocks=(1, 1, 1, 1), norm="bias_free", expansion=2.0),
        RestormerConfig(width=6, blocks=(1, 1, 1, 1), heads=(3, 1, 1, 1), expansion=1.5, dcpt=True),
        RestormerConfig(
            in_channels=4, out_channels=2, width=2, heads=(1, 1, 1, 1), dual_pixel=True
        ),
    ],
)
def test_sizes_of_our_own_are_read_back(config: RestormerConfig) -> None:
    with torch.device("meta"):
        state = FAMILY.build(config).state_dict()
    assert FAMILY.config_from_state_dict(state) == config


def test_tensors_that_are_no_restormer() -> None:
    with torch.device("meta"):
        state = rr.create_network("restormer-deraining", **SMALL).state_dict()
    assert FAMILY.config_from_state_dict({}) is None
    for name, value in {
        "patch_embed.proj.weight": torch.zeros(3),
        "output.weight": torch.zeros(()),
        "encoder_level1.0.attn.temperature": torch.zeros(0),
        "latent.0.attn.temperature": torch.zeros(0, 1, 1),
        "encoder_level3.0.attn.temperature": torch.zeros(10**9, 1, 1, device="meta"),
    }.items():
        assert FAMILY.config_from_state_dict({**state, name: value}) is None
    # Recognised, and refused when the tensors are compared with the network's.
    empty = {"latent.0.ffn.project_out.weight": torch.zeros(0, 0, 0, 0)}
    assert FAMILY.config_from_state_dict({**state, **empty}) is not None
    with pytest.raises(rr.RestorertError, match="tensors that do not fit together"):
        rr.networks.network_from_state_dict({**state, **empty})
    # Numbers that int() would take, or choke on, count no blocks.
    odd = {f"encoder_level1.{n}.x": torch.zeros(1) for n in ("²", "٣", "9" * 9999, "-1", "")}
    assert FAMILY.config_from_state_dict({**state, **odd}) == FAMILY.config_from_state_dict(state)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("deraining", "restormer-deraining"),
        ("motion_deblurring", "restormer-motion-deblurring"),
        ("single_image_defocus_deblurring", "restormer-defocus-deblurring"),
        ("dual_pixel_defocus_deblurring", "restormer-dual-pixel-defocus-deblurring"),
        ("real_denoising", "restormer-real-denoising"),
        ("gaussian_color_denoising_blind", "restormer-gaussian-color-denoising-blind"),
        ("gaussian_gray_denoising_sigma25", "restormer-gaussian-gray-denoising-sigma25"),
        ("dcpt_restormer_5d", "restormer-dcpt"),
    ],
)
def test_published_files_are_told_apart_by_their_names(file: str, name: str) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in rr.create_network(name).state_dict().items()}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    found = rr.networks.network_from_state_dict(state, hint=file)
    assert found is not None
    assert found.spec == rr.network_spec(name)


@pytest.mark.parametrize(
    ("name", "key"), [("restormer-dcpt", "params_ema"), ("restormer-deraining", "params")]
)
def test_loads_as_the_authors_ship_it(name: str, key: str, tmp_path: Path) -> None:
    net = rr.create_network(name, seed=3, **SMALL)
    torch.save({key: net.state_dict()}, tmp_path / "net_g_latest.pth")
    loaded = rr.load_network(tmp_path / "net_g_latest.pth")
    assert loaded.spec.config == net.spec.config
    x = torch.rand(1, 3, 8, 24)
    assert torch.equal(loaded(x), net(x))
