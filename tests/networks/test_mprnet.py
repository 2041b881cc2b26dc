"""MPRNet against the authors' figures; its early exits."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import pytest
import torch
from official import assert_equals_official, load_seeded, seeded_picture, variants_recorded
from torch import Tensor

import restorert as rr
from restorert.errors import CheckpointError
from restorert.networks.counts import count_macs, count_parameters
from restorert.networks.mprnet import FAMILY, MPRNetConfig

SMALL = FAMILY.small
GAIN = 0.7


# measured worst: samples 2.7e-6 of outputs up to 3.9, means and deviations 4.3e-8
@pytest.mark.slow
@pytest.mark.parametrize("name", variants_recorded("mprnet"))
def test_equals_the_official_code(name: str) -> None:
    assert_equals_official("mprnet", name, gain=GAIN)


# Defaults of MPRNet.__init__ in each task's MPRNet.py (n_feat, scale_unetfeats, scale_orsnetfeats,
# num_cab, reduction), TRAIN_PS of its training.yml.
@pytest.mark.parametrize(
    ("name", "sizes", "patch"),
    [
        ("mprnet-deblur", (96, 48, 32, 8, 4), 256),
        ("mprnet-denoise", (80, 48, 32, 8, 4), 128),
        ("mprnet-derain", (40, 20, 16, 8, 4), 256),
    ],
)
def test_variants(name: str, sizes: tuple[int, ...], patch: int) -> None:
    spec = rr.network_spec(name)
    c = spec.config
    assert (c.width, c.unet_growth, c.orsnet_growth, c.cabs, c.reduction) == sizes
    assert (spec.size_multiple, spec.padding_mode, spec.training_patch) == (8, "reflect", patch)
    assert "non-commercial" in spec.weights_license


# papers.toml: millions of parameters and GMACs at 256x256 of the official code; the early exits'
# are our own counts.
@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [
        ("mprnet-deblur", 20.13, 759.4),
        ("mprnet-deblur-1stage", 5.75, 108.6),
        ("mprnet-deblur-2stage", 11.82, 230.8),
        ("mprnet-denoise", 15.74, 572.9),
        ("mprnet-derain", 3.64, 141.0),
    ],
)
def test_counts(name: str, millions: float, giga: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    assert round(count_parameters(net) / 1e6, 2) == millions
    macs = count_macs(net, (1, 3, 256, 256))
    assert macs.exact == macs.paper
    assert round(macs.exact / 1e9, 1) == giga
    assert count_macs(net, (2, 3, 256, 512)).exact == 4 * macs.exact


@pytest.mark.parametrize(("stages", "millions"), [(1, 5.6), (2, 11.3)])
def test_the_papers_count_of_the_early_exits(stages: int, millions: float) -> None:
    """The efficiency table leaves out the shallow features and the convolution that joins stages.

    Its 20.1 M of all three stages has them.
    """
    with torch.device("meta"):
        net = rr.create_network(f"mprnet-deblur-{stages}stage")
    left_out = ("shallow_feat", "concat")
    counted = sum(p.numel() for n, p in net.named_parameters() if not n.startswith(left_out))
    assert round(counted / 1e6, 1) == millions


def _checkpoint(path: Path) -> tuple[Path, list[Tensor]]:
    """A checkpoint as the authors ship it, of a small network, and its three pictures."""
    net = load_seeded(rr.create_network("mprnet-deblur", **SMALL))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {"state": {}}}, path)
    with torch.no_grad():
        return path, net.stages(seeded_picture(24, 40))


@pytest.mark.parametrize("stages", [1, 2])
def test_early_exits_load_from_the_whole_checkpoint(stages: int, tmp_path: Path) -> None:
    path, pictures = _checkpoint(tmp_path / "model_deblurring.pth")
    name = f"mprnet-deblur-{stages}stage"
    net = rr.load_network(path, name=name)
    assert (net.spec.name, net.spec.config.stages) == (name, stages)
    x = seeded_picture(24, 40)
    with torch.no_grad():
        assert torch.equal(net(x), pictures[stages - 1])
        assert len(net.stages(x)) == stages
    # The small form, saved, is recognised with and without a name.
    small = tmp_path / "small.safetensors"
    rr.save_network(net, small)
    for again in (rr.load_network(small), rr.load_network(small, name=name)):
        assert (again.spec.name, again.spec.config) == (name, net.spec.config)
        with torch.no_grad():
            assert torch.equal(again(x), pictures[stages - 1])


def test_a_short_checkpoint_is_not_taken_for_a_longer_network(tmp_path: Path) -> None:
    rr.save_network(rr.create_network("mprnet-deblur-1stage"), tmp_path / "one.safetensors")
    with pytest.raises(
        CheckpointError, match=r"holds no mprnet-deblur-2stage: .* mprnet-deblur-1stage"
    ):
        rr.load_network(tmp_path / "one.safetensors", name="mprnet-deblur-2stage")


def test_the_task_is_read_off_the_widths(tmp_path: Path) -> None:
    path, pictures = _checkpoint(tmp_path / "model_deblurring.pth")
    net = rr.load_network(path)
    assert (net.spec.name, net.spec.config.width) == ("mprnet-deblur", SMALL["width"])
    with torch.no_grad():
        assert torch.equal(net(seeded_picture(24, 40)), pictures[-1])
    for name in ("mprnet-denoise", "mprnet-derain", "mprnet-deblur-2stage"):
        with torch.device("meta"):
            state = rr.create_network(name).state_dict()
        assert FAMILY.config_from_state_dict(state) == rr.network_spec(name).config


def test_patches_are_restored_apart() -> None:
    """Stage one encodes quarters: its channel attention sees nothing of the others.

    The authors' order of the halves is that of the figures at 72x40.
    """
    net = load_seeded(rr.create_network("mprnet-deblur", **SMALL), gain=GAIN)
    x = seeded_picture(32, 48, batch=2)
    with torch.no_grad():
        batch = net.stages(x)
        for image in range(2):
            for found, expected in zip(net.stages(x[image : image + 1]), batch, strict=True):
                # measured worst: 8.1e-7 of the largest output, which is up to 3.8
                atol = 4e-6 * float(expected[image].abs().max())
                torch.testing.assert_close(found[0], expected[image], rtol=0, atol=atol)
        # Stage one's lower half does not depend on the upper one.
        changed = x.clone()
        changed[:, :, :16] = 0
        first, changed_first = batch[0], net.stages(changed)[0]
    # measured: 0
    torch.testing.assert_close(first[:, :, 16:], changed_first[:, :, 16:], rtol=0, atol=1e-6)
    assert (first[:, :, :16] - changed_first[:, :, :16]).abs().max() > 0.1  # measured: 1.9


def test_one_slope_for_all_prelus() -> None:
    net = copy.deepcopy(rr.create_network("mprnet-derain", **SMALL))
    slopes = [p for name, p in net.named_parameters(remove_duplicate=False) if p.shape == (1,)]
    assert len(slopes) > 30
    assert len({id(p) for p in slopes}) == 1


@pytest.mark.slow
def test_slopes_are_exported_as_leaky_relus(tmp_path: Path) -> None:
    net = rr.create_network("mprnet-deblur-1stage", **SMALL)
    net.stage1_encoder.encoder_level1[0].body[1].weight.fill_(-0.375)
    path = rr.export_onnx(net, tmp_path / "a.onnx")
    nodes = onnx.load(path).graph.node
    assert not [node for node in nodes if node.op_type == "PRelu"]
    leaky = [node for node in nodes if node.op_type == "LeakyRelu"]
    assert len(leaky) == 15
    assert {node.attribute[0].f for node in leaky} == {-0.375}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_keep_the_picture_in_float32(dtype: torch.dtype) -> None:
    net = rr.create_network("mprnet-deblur", **SMALL)
    x = seeded_picture(24, 40)
    expected = net.stages(x)
    found = copy.deepcopy(net).to(dtype).stages(x)
    for picture, other in zip(found, expected, strict=True):
        assert picture.dtype == torch.float32
        # measured worst: fp16 7.8e-4, bf16 7.8e-3
        assert (picture - other).abs().max() < {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]


@pytest.mark.parametrize(
    "config",
    [
        {"stages": 0},
        {"stages": 4},
        {"width": 3},
        {"width": 8.0},
        {"reduction": 0},
        {"cabs": 0},
        {"in_channels": 0},
        {"unet_growth": -1},
    ],
)
def test_nonsense_is_refused_in_one_line(config: dict[str, int]) -> None:
    with pytest.raises(rr.RestorertError, match=r"MPRNet needs .* 1 to 3 stages, not ") as error:
        rr.create_network("mprnet-deblur", **config)
    assert "\n" not in str(error.value)


def test_other_tensors_are_no_mprnet() -> None:
    good = rr.create_network("mprnet-deblur", **SMALL).state_dict()
    for name in ("shallow_feat1.0.weight", "stage1_encoder.down12.down.1.weight"):
        for tensor in (torch.zeros(3), torch.zeros(0, 0, 0, 0), torch.tensor(1.0)):
            assert FAMILY.config_from_state_dict({**good, name: tensor}) is None
    hidden = "shallow_feat1.1.CA.conv_du.0.weight"
    assert FAMILY.config_from_state_dict({**good, hidden: torch.zeros(900, 8, 1, 1)}) is None
    assert FAMILY.config_from_state_dict({**good, "tail.weight": torch.zeros(3, 1, 3, 3)}) is None
    assert FAMILY.config_from_state_dict({}) is None


def test_without_the_third_stage_its_sizes_mean_nothing() -> None:
    assert MPRNetConfig(stages=2, cabs=1, orsnet_growth=4) == MPRNetConfig(stages=2)
    assert MPRNetConfig(stages=3, cabs=1) != MPRNetConfig(stages=3)
