"""SwinIR against the authors' figures, and what is special about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from official import DATA, assert_equals_official, widen_norms

import restorert as rr
from restorert.networks import swinir
from restorert.networks.counts import count_macs, count_parameters

SMALL = {"width": 12, "depths": (2, 2)}


# A picture larger than the training patch takes half a minute: one is enough.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name", "sizes"),
    [
        ("swinir", "swinir-denoise-color-15", ("208x336", "48x16")),
        ("swinir", "swinir-denoise-gray-15", ("48x16",)),
        ("swinir", "swinir-jpeg-color-10", ("49x14",)),
        ("swinir", "swinir-jpeg-gray-10", ("49x14",)),
        ("swinir_dcpt", "swinir-dcpt", ("48x16",)),
    ],
)
def test_equals_the_official_code(family: str, name: str, sizes: tuple[str, ...]) -> None:
    assert_equals_official(family, name, tolerance=1e-4, adjust=widen_norms, sizes=sizes)


# main_test_swinir.py, define_model: in_chans, window_size, img_range, img_size.
@pytest.mark.parametrize(
    ("prefix", "levels", "channels", "window", "image_range", "patch"),
    [
        ("swinir-denoise-color", (15, 25, 50), 3, 8, 1.0, 128),
        ("swinir-denoise-gray", (15, 25, 50), 1, 8, 1.0, 128),
        ("swinir-jpeg-color", (10, 20, 30, 40), 3, 7, 255.0, 126),
        ("swinir-jpeg-gray", (10, 20, 30, 40), 1, 7, 255.0, 126),
    ],
)
def test_variants(
    prefix: str,
    levels: tuple[int, ...],
    channels: int,
    window: int,
    image_range: float,
    patch: int,
) -> None:
    for level in levels:
        spec = rr.network_spec(f"{prefix}-{level}")
        config = spec.config
        assert (config.width, config.depths, config.heads) == (180, (6,) * 6, 6)
        assert (config.mlp_ratio, config.dcpt) == (2.0, False)
        assert (config.in_channels, config.window, config.image_range) == (
            channels,
            window,
            image_range,
        )
        assert (spec.in_channels, spec.out_channels) == (channels, channels)
        assert (spec.size_multiple, spec.training_patch) == (window, patch)


def test_the_variant_of_dcpt() -> None:
    # options/all_in_one/test/test_SwinIR_5d.yml, network_g
    spec = rr.network_spec("swinir-dcpt")
    config = spec.config
    assert (config.width, config.depths, config.heads) == (180, (6,) * 6, 6)
    assert (config.mlp_ratio, config.window, config.dcpt) == (2.0, 8, True)
    assert (spec.size_multiple, spec.padding_mode) == (8, "reflect")


# papers.toml: parameters; MACs at 256x256 (252x252 for windows of 7), exact.
@pytest.mark.parametrize(
    ("name", "millions", "giga"),
    [
        ("swinir-dcpt", 11.46, 800.3),
        ("swinir-denoise-color-25", 11.50, 800.3),
        ("swinir-jpeg-gray-40", 11.49, 762.7),
    ],
)
def test_counts(name: str, millions: float, giga: float) -> None:
    with torch.device("meta"):
        net = rr.create_network(name)
    spec = net.spec
    side = 256 // spec.size_multiple * spec.size_multiple
    macs = count_macs(net, (1, spec.in_channels, side, side))
    assert round(count_parameters(net) / 1e6, 2) == millions
    assert round(macs.exact / 1e9, 1) == giga
    assert count_macs(net, (2, spec.in_channels, side, 2 * side)).exact == 4 * macs.exact


def _attention_pixel_by_pixel(
    attention: swinir.WindowAttention, x: torch.Tensor, window: int, shift: int, *, wrap: bool
) -> torch.Tensor:
    """Attention in a picture [H, W, C] whose windows have a corner at (shift, shift).

    Pixels outside the picture are those of the opposite border (``wrap``) or do not exist.
    """
    height, width, _ = x.shape
    q, k, v = attention.qkv(x).reshape(height, width, 3, attention.heads, -1).unbind(2)
    out = torch.empty_like(x)
    for row, column in np.ndindex(height, width):
        top = (row - shift) // window * window + shift
        left = (column - shift) // window * window + shift
        neighbours = [(top + i, left + j) for i, j in np.ndindex(window, window)]
        if not wrap:
            neighbours = [(r, c) for r, c in neighbours if 0 <= r < height and 0 <= c < width]
        r, c = torch.tensor(neighbours).T
        logits = attention.scale * (k[r % height, c % width] * q[row, column]).sum(-1)
        if hasattr(attention, "relative_position_bias_table"):
            offset = (row - r + window - 1) * (2 * window - 1) + column - c + window - 1
            logits = logits + attention.relative_position_bias_table[offset]
        share = torch.softmax(logits, 0)
        out[row, column] = (share[:, :, None] * v[r % height, c % width]).sum(0).flatten()
    return attention.proj(out)


@pytest.mark.parametrize("window", [4, 7])
@pytest.mark.parametrize("dcpt", [False, True], ids=["original", "dcpt"])
def test_windows_shift_and_mask(dcpt: bool, window: int) -> None:
    net = rr.create_network(
        "swinir-dcpt" if dcpt else "swinir-denoise-color-15", **SMALL, window=window
    )
    attention = net.groups[0].residual_group.blocks[1].attn
    for parameter in attention.parameters():
        parameter.mul_(3)  # logits of order 1
    batch, height, width = 2, 2 * window, 3 * window
    x = torch.randn(batch, height, width, 12, generator=torch.Generator().manual_seed(0))
    where = swinir.places((batch, height, width), window, net.bias_rows, x)
    for order, shift in (("plain", 0), ("shifted", window // 2)):
        tokens = swinir.gather(x, where.moves["image", "plain"])
        if order == "shifted":
            tokens = swinir.gather(tokens, where.moves["plain", "shifted"])
        mask = where.mask if order == "shifted" else None
        found = attention(tokens, where.index, mask)
        again = found
        if order == "shifted":
            again = swinir.gather(again, where.moves["shifted", "plain"])
            assert torch.equal(
                swinir.gather(again, where.moves["plain", "image"]),
                swinir.gather(found, where.moves["shifted", "image"]),
            )
        found = swinir.gather(again, where.moves["plain", "image"])
        for picture in range(batch):
            expected = _attention_pixel_by_pixel(attention, x[picture], window, shift, wrap=dcpt)
            # measured worst: 4.4e-7 of the largest output, which is up to 13
            atol = 2e-6 * float(expected.abs().max())
            torch.testing.assert_close(found[picture], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("colour", ["color", "gray"])
def test_loads_as_the_authors_ship_it(colour: str, tmp_path: Path) -> None:
    """With the buffers that follow from the sizes, under `params`, and by the file's name."""
    with np.load(DATA / "swinir_official.npz") as recorded:
        names = recorded[f"swinir-denoise-{colour}-15/derived_names"].tolist()
        shapes = recorded[f"swinir-denoise-{colour}-15/derived_shapes"].tolist()
    assert len(names) == 36 + 18
    assert names[0].endswith("relative_position_index")
    assert shapes[0] == "[64, 64]"
    assert shapes.count("[256, 64, 64]") == 18
    net = rr.create_network(f"swinir-denoise-{colour}-50")
    state = dict(net.state_dict())
    # Their contents are not looked at.
    state |= {name: torch.zeros(1) for name in names}
    path = tmp_path / f"00_{colour}DN_DFWB_s128w8_SwinIR-M_noise50.pth"
    torch.save({"params": state}, path)
    again = rr.load_network(path)
    assert again.spec.name == f"swinir-denoise-{colour}-50"
    assert sorted(again.state_dict()) == sorted(net.state_dict())
    x = torch.rand(1, again.spec.in_channels, 8, 16)
    assert torch.equal(again(x), net(x))
    again.load_state_dict(state)  # strict


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("006_CAR_DFWB_s126w7_SwinIR-M_jpeg30", "swinir-jpeg-gray-30"),
        ("006_colorCAR_DFWB_s126w7_SwinIR-M_jpeg20", "swinir-jpeg-color-20"),
        ("005_colorDN_DFWB_s128w8_SwinIR-M_noise25", "swinir-denoise-color-25"),
        ("mine-jpeg-gray-40", "swinir-jpeg-gray-40"),
        ("dcpt_swinir_5d", "swinir-dcpt"),
    ],
)
def test_published_names_of_files_tell_variants_apart(file: str, name: str) -> None:
    state = rr.create_network(name).state_dict()
    net = rr.networks.network_from_state_dict(state, hint=file)
    assert net is not None
    assert net.spec.name == name


def test_dcpt_names_its_groups_encoder_and_decoder(tmp_path: Path) -> None:
    net = rr.create_network("swinir-dcpt", width=12, depths=(1, 2, 3, 1))
    names = set(net.state_dict())
    assert "encode_layers.1.residual_group.blocks.1.norm1.weight" in names
    assert "decode_layers0.residual_group.blocks.2.norm1.weight" in names
    assert "decode_layers1.conv.bias" in names
    torch.save({"params": {}, "params_ema": net.state_dict()}, tmp_path / "dcpt_swinir_5d.pth")
    again = rr.load_network(tmp_path / "dcpt_swinir_5d.pth")
    assert again.spec.name == "swinir-dcpt"
    assert again.spec.config == net.spec.config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 100}, "a width that is a multiple of heads, not in_channels=3, width=100"),
        ({"in_channels": 0}, "in_channels >= 1"),
        ({"depths": ()}, "at least one block"),
        ({"depths": (2, 0)}, "at least one block"),
        ({"depths": (2, 2, 2)}, "an even number of groups"),
        ({"window": 1}, "a window of 2 to 32"),
        ({"window": 64}, "a window of 2 to 32"),
        ({"image_range": float("nan")}, "a positive image_range"),
        ({"mlp_ratio": 0.0}, "leaves hidden channels"),
    ],
)
def test_nonsense_is_refused_in_one_line(config: dict[str, object], message: str) -> None:
    with pytest.raises(rr.RestorertError, match=message) as caught:
        rr.create_network("swinir-dcpt", **config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["swinir-dcpt", "swinir-jpeg-gray-10"])
def test_strange_tensors_are_not_taken_for_it(name: str) -> None:
    state = rr.create_network(name, **SMALL).state_dict()
    assert swinir.FAMILY.config_from_state_dict(state) is not None
    assert swinir.FAMILY.config_from_state_dict({}) is None
    # A network for super-resolution has the same body.
    upsampler = {"conv_before_upsample.0.weight": torch.zeros(64, 12, 3, 3)}
    assert swinir.FAMILY.config_from_state_dict(state | upsampler) is None
    for key in state:
        for shape in ((), (0,), (0, 0), (1, 1), (7, 0, 3, 3), (0, 5, 1, 1), (2, 3, 4, 5, 6)):
            swinir.FAMILY.config_from_state_dict(state | {key: torch.zeros(shape)})
        swinir.FAMILY.config_from_state_dict({k: v for k, v in state.items() if k != key})
    many = {f"layers.{'9' * 5000}.residual_group.blocks.0.norm1.weight": torch.zeros(1)}
    swinir.FAMILY.config_from_state_dict(state | many)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["swinir-dcpt", "swinir-jpeg-gray-10"])
def test_half_weights_keep_the_picture_in_float32(name: str, dtype: torch.dtype) -> None:
    net = rr.create_network(name, **SMALL)
    m = net.spec.size_multiple
    x = torch.rand(1, net.spec.in_channels, 2 * m, 3 * m)
    expected = net(x)
    found = net.to(dtype)(x)
    assert found.dtype == torch.float32
    # measured worst: fp16 9e-4, bf16 7.3e-3
    assert (found - expected).abs().max() < {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
