"""HINet against the authors' figures, and the registry's promises."""

from __future__ import annotations

import pytest
import torch
from official import assert_equals_official, variants_recorded

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters


# measured worst: samples 6.2e-6 of outputs up to 8.2, means and deviations 8.8e-8
@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("hinet"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("hinet", name)


# Authors' option files: wf, hin_position_left, hin_position_right, val.crop_size.
@pytest.mark.parametrize(
    ("name", "width", "levels", "tile"),
    [
        ("hinet", 64, (0, 4), None),
        ("hinet-gopro", 64, (3, 4), 256),
        ("hinet-reds", 64, (3, 4), 256),
        ("hinet-rain", 64, (0, 4), 256),
        ("hinet-sidd", 64, (0, 4), None),
        ("hinet-sidd-0.5x", 32, (0, 4), None),
    ],
)
def test_variants(name: str, width: int, levels: tuple[int, int], tile: int | None) -> None:
    spec = rr.network_spec(name)
    assert (spec.config.width, spec.config.hin_levels, spec.tile) == (width, levels, tile)
    assert spec.size_multiple == 16


# papers.toml: parameters of the official code; MACs at 256x256, exact and as the papers count.
@pytest.mark.parametrize(
    ("name", "millions", "exact", "paper"),
    [("hinet", 88.67, 157.6, 170.5), ("hinet-sidd-0.5x", 22.18, 39.5, 42.8)],
)
def test_counts(name: str, millions: float, exact: float, paper: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    macs = count_macs(net, (1, 3, 256, 256))
    assert round(count_parameters(net) / 1e6, 2) == millions
    assert (round(macs.exact / 1e9, 1), round(macs.paper / 1e9, 1)) == (exact, paper)
    assert count_macs(net, (2, 3, 256, 512)).exact == 4 * macs.exact


def test_only_the_last_stage_unless_asked() -> None:
    net = rr.create_network("hinet", width=8, depth=2)
    x = torch.rand(1, 3, 6, 10)
    stages = net.stages(x)
    assert len(stages) == 2
    assert torch.equal(net(x), stages[-1])


def test_weights_are_seeded_and_the_global_state_is_kept() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = rr.create_network("hinet", width=4, depth=2, seed=1)
    assert torch.equal(torch.rand(3), expected)
    second = rr.create_network("hinet", width=4, depth=2, seed=1)
    other = rr.create_network("hinet", width=4, depth=2, seed=2)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert not torch.equal(first.conv_01.weight, other.conv_01.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_keep_the_picture_in_float32(dtype: torch.dtype) -> None:
    net = rr.create_network("hinet", width=8, depth=3)
    x = torch.rand(1, 3, 16, 24)
    expected = net(x)
    out = rr.create_network("hinet", width=8, depth=3).to(dtype)(x)
    assert out.dtype == torch.float32
    # measured worst: fp16 3e-4, bf16 1.8e-3
    assert (out - expected).abs().max() < {torch.float16: 1e-3, torch.bfloat16: 6e-3}[dtype]


def test_a_config_of_other_channels_reaches_the_spec() -> None:
    net = rr.create_network("hinet", width=4, depth=3, in_channels=1)
    assert (net.spec.in_channels, net.spec.out_channels, net.spec.size_multiple) == (1, 1, 4)
    assert net(torch.rand(1, 1, 8, 12)).shape == (1, 1, 8, 12)
    engine = rr.build_engine(net, runner="torch")
    assert engine(torch.rand(1, 1, 7, 9)).shape == (1, 1, 7, 9)


def test_unknown_names_and_fields_are_one_line() -> None:
    with pytest.raises(rr.RestorertError, match=r"unknown network 'hinett'; did you mean hinet, "):
        rr.create_network("hinett")
    with pytest.raises(
        rr.RestorertError, match=r"hinet has no config field 'wf'; it has in_channels"
    ):
        rr.create_network("hinet", wf=8)
    with pytest.raises(rr.RestorertError, match=r"an even width >= 2"):
        rr.create_network("hinet", width=7)


def test_trains() -> None:
    net = rr.create_network("hinet", width=4, depth=2).train().requires_grad_(True)
    net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
