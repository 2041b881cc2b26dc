"""PromptIR against the authors' figures, and what its prompts must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official import assert_equals_official, variants_recorded
from torch.nn import functional as F

import restorert as rr
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.promptir import FAMILY, PromptBlock, PromptIRConfig

SMALL = dict(FAMILY.small)


@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("promptir"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("promptir", name, tolerance=1e-4)


def test_variants() -> None:
    assert variants_recorded("promptir") == sorted(FAMILY.variants)
    for spec in FAMILY.variants.values():
        config = spec.config
        assert (config.width, config.blocks, config.heads) == (48, (4, 6, 6, 8), (1, 2, 4, 8))
        assert (config.expansion, config.norm, config.refinement_blocks) == (2.66, "with_bias", 4)
        assert (config.prompts, config.prompt_channels) == (5, (64, 128, 320))
        # The authors' constants 96 + 64, 192 + 128 (written 96 + 224) and 384 + 320 (192 + 512).
        assert config.prompted_channels == (160, 320, 704)
        assert (spec.size_multiple, spec.padding_mode) == (8, "reflect")
    assert rr.network_spec("promptir-dcpt").rounding == "nearest"
    assert rr.network_spec("promptir").rounding == "truncate"  # its script casts to uint8


# papers.toml: parameters of the official code, and its 172.7 GMACs at 256x256. The attention's
# other form saves 2.0 of them (test_restormer.py has the formula).
@pytest.mark.parametrize(
    ("name", "millions", "exact"), [("promptir-dcpt", 35.38, 170.7), ("promptir", 35.59, 170.7)]
)
def test_counts(name: str, millions: float, exact: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    assert round(count_parameters(net) / 1e6, 2) == millions
    assert round(count_macs(net, (1, 3, 256, 256)).exact / 1e9, 1) == exact


@pytest.mark.parametrize("size", [(6, 6), (3, 17), (1, 1), (40, 2)])
def test_prompts_are_the_published_ones(size: tuple[int, int]) -> None:
    """Section 3.2: a sum of prompts by the softmax of the mean, resized, convolved."""
    block = PromptBlock(prompts=3, channels=4, size=6, features=8).double()
    x = torch.randn(2, 8, *size).double()
    with torch.no_grad():
        weights = block.linear_layer(x.mean(dim=(2, 3))).softmax(dim=1)
        mixed = (weights[:, :, None, None, None] * block.prompt_param).sum(dim=1)
        expected = block.conv3x3(F.interpolate(mixed, size, mode="bilinear"))
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-14)  # measured: 0


def test_channels_last_has_no_layout_for_the_five_dimensions_of_prompts() -> None:
    net = rr.create_network("promptir", **SMALL)
    x = torch.rand(1, 3, 16, 24)
    expected = net(x)
    found = net.to(memory_format=torch.channels_last)(x)
    # measured worst of five pictures: 2.4e-7
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert net.prompt1.prompt_param.ndim == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 7}, "even width >= 2, not 7"),
        ({"in_channels": 0}, "in_channels >= 1, not 0"),
        ({"prompts": 0}, "prompts >= 1"),
        ({"prompt_channels": (8, 12)}, "of three levels"),
        ({"prompt_sizes": (6, 5, 0)}, "of three levels"),
        ({"prompt_channels": (8, 13, 20)}, "must divide the channels with prompts"),
    ],
)
def test_nonsense_is_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(rr.RestorertError) as caught:
        rr.create_network("promptir-dcpt", **{**SMALL, **fields})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_of_our_own_are_read_back() -> None:
    config = PromptIRConfig(
        in_channels=1,
        width=8,
        blocks=(1, 2, 1, 3),
        refinement_blocks=2,
        heads=(1, 2, 2, 4),
        norm="bias_free",
        prompts=3,
        prompt_channels=(4, 6, 10),
        prompt_sizes=(7, 5, 1),
    )
    with torch.device("meta"):
        state = FAMILY.build(config).state_dict()
    assert FAMILY.config_from_state_dict(state) == config


def test_tensors_that_are_no_promptir() -> None:
    with torch.device("meta"):
        state = rr.create_network("promptir-dcpt", **SMALL).state_dict()
    for name, value in {
        "prompt1.prompt_param": torch.zeros(3),
        "prompt3.prompt_param": torch.zeros(0, 0, 0, 0, 0),
        "output.weight": torch.zeros(2, 16, 3, 3),
        "latent.0.attn.temperature": torch.zeros(()),
    }.items():
        assert FAMILY.config_from_state_dict({**state, name: value}) is None


@pytest.mark.parametrize("name", ["promptir", "promptir-dcpt"])
def test_loads_as_the_authors_ship_it(name: str, tmp_path: Path) -> None:
    """PromptIR from Lightning, which calls the network ``net``; DCPT from BasicSR."""
    net = rr.create_network(name, seed=3, **SMALL)
    state = net.state_dict()
    content: dict[str, object] = {"params_ema": state}
    if name == "promptir":
        content = {"epoch": 149, "state_dict": {f"net.{k}": v for k, v in state.items()}}
    torch.save(content, tmp_path / "model.ckpt")
    loaded = rr.load_network(tmp_path / "model.ckpt")
    assert loaded.spec.name == name or loaded.spec.config == net.spec.config
    x = torch.rand(1, 3, 8, 24)
    assert torch.equal(loaded(x), net(x))
