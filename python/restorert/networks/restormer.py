"""Restormer: Efficient Transformer for High-Resolution Image Restoration.

Zamir, Arora, Khan, Hayat, Khan, Yang. CVPR 2022. A U-Net of four levels of transformer blocks whose
attention is over channels (MDTA, section 3.1) and whose feed-forward part is gated (GDFN, section
3.2). DCPT (Hu et al., "Universal Image Restoration Pre-training via Degradation Classification",
ICLR 2025) trains a version of it with a ReLU instead of the softmax. Parameter names are the
authors' own.

It is one file because all of it is one network; PromptIR imports its blocks from here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RepeatedBlock, RestorationNetwork, named
from restorert.networks.nafnet import LayerNorm2d
from restorert.spec import (
    ALL_IN_ONE,
    CAMERA_NOISE,
    MOTION_BLUR,
    RAIN,
    NetworkConfig,
    NetworkSpec,
    by_name,
)

PAPER_DCPT = "DCPT (Hu et al., ICLR 2025)"

Norm = Literal["with_bias", "bias_free"]
Attention = Literal["softmax", "relu"]


@dataclass(frozen=True)
class TransformerUNetConfig(NetworkConfig):
    """Sizes of a U-Net of four levels of transformer blocks: Restormer's and PromptIR's.

    Attributes:
        width: channels of the first level, even; level i has ``width * 2**i``.
        blocks: transformer blocks of the four levels, each >= 1.
        refinement_blocks: at full resolution after the decoder, >= 1.
        heads: of the attention at the four levels.
        expansion: hidden channels of the feed-forward part, as a multiple of the block's.
        norm: "with_bias" is the usual layer norm over channels; "bias_free" divides by the
            deviation without subtracting the mean, and has no bias.
    """

    width: int = 48
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement_blocks: int = 4
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = 2.66
    norm: Norm = "with_bias"

    def __post_init__(self) -> None:
        network, width, heads = self._family, self.width, self.heads
        blocks = (*self.blocks, self.refinement_blocks)
        if width < 2 or width % 2:
            raise InputError(f"{network} needs an even width >= 2, not {width}")
        if len(blocks) != 5 or min(blocks) < 1:
            raise InputError(
                f"{network} needs blocks of four levels and refinement_blocks, each >= 1, "
                f"not {blocks}"
            )
        if len(heads) != 4 or any(
            count < 1 or width * 2**level % count for level, count in enumerate(heads)
        ):
            raise InputError(
                f"{network} needs heads of four levels that divide its channels "
                f"{[width * 2**level for level in range(4)]}, not {heads}"
            )
        if not 1 <= width * self.expansion <= 64 * width:
            raise InputError(
                f"{network} needs an expansion between 1 / width and 64, not {self.expansion}"
            )
        if self.norm not in ("with_bias", "bias_free"):
            raise InputError(f"{network} has norms with_bias and bias_free, not {self.norm!r}")

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: three halvings."""
        return 8

    @property
    def norm_eps(self) -> float:
        """Added to the variance of every norm."""
        return 1e-5

    @property
    def attention(self) -> Attention:
        """The function that turns scaled cosines between channels into weights."""
        return "softmax"


@dataclass(frozen=True)
class RestormerConfig(TransformerUNetConfig):
    """Sizes of a Restormer.

    Attributes:
        in_channels: of the picture; twice ``out_channels`` where ``dual_pixel``.
        out_channels: of the restored picture.
        dual_pixel: the picture is a left and a right view, and not added to the output.
        dcpt: DCPT's version: attention with ReLU instead of softmax, a norm's epsilon of 1e-6
            instead of 1e-5, and tensors named ``encoder_level1.body.0``, not ``encoder_level1.0``.
    """

    out_channels: int = 3
    dual_pixel: bool = False
    dcpt: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = 2 * self.out_channels if self.dual_pixel else self.out_channels
        if self.out_channels < 1 or self.in_channels != expected:
            raise InputError(
                f"Restormer{' for dual pixels' if self.dual_pixel else ''} of "
                f"out_channels={self.out_channels} needs in_channels={max(expected, 1)}, "
                f"not {self.in_channels}"
            )

    @property
    def norm_eps(self) -> float:
        return 1e-6 if self.dcpt else 1e-5

    @property
    def attention(self) -> Attention:
        return "relu" if self.dcpt else "softmax"


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Float32 for half precision: norms and sums over pixels need it."""
    return torch.promote_types(dtype, torch.float32)


class BiasFreeLayerNorm(nn.Module):
    """Division by the deviation over the channels of each pixel; the mean stays."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(_wide(x.dtype))
        centred = wide - wide.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        normalised = wide / torch.sqrt(variance + self.eps)
        return (normalised * self.weight.to(wide.dtype)[:, None, None]).to(x.dtype)


class ChannelAttention(nn.Module):
    """MDTA: attention between the channels of a head, over all pixels.

    The authors split queries, keys and values into heads, normalise queries and keys, attend and
    project. Here every big tensor is read once, and none is split, transposed or stored in float32:
    a plan of TensorRT-RTX moves 57 tensors' worth of bytes per block instead of 81.
    """

    def __init__(self, channels: int, heads: int, kind: Attention) -> None:
        super().__init__()
        self.heads = heads
        self.kind = kind
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, channels * 3, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(
            channels * 3, channels * 3, 3, padding=1, groups=channels * 3, bias=False
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)
        head = torch.arange(channels) // (channels // heads)
        self.register_buffer("other_head", head[:, None] != head, persistent=False)
        self.other_head: Tensor

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._project(x, part) for part in range(3))
        # project_out (attention value) = (project_out attention) value: one matrix of the size
        # channels x channels a picture, and one pass over the pixels.
        attention = self._attention(query, key)
        matrix = (self.project_out.weight[:, :, 0, 0].to(attention.dtype) @ attention).to(x.dtype)
        return (value.permute(0, 2, 3, 1) @ matrix.mT[:, None]).permute(0, 3, 1, 2)

    def _project(self, x: Tensor, part: int) -> Tensor:
        """Queries, keys or values, [N, C, H, W]: three convolutions, so that nothing is split."""
        channels = x.shape[1]
        rows = slice(part * channels, (part + 1) * channels)
        x = F.conv2d(x, self.qkv.weight[rows])
        return F.conv2d(x, self.qkv_dwconv.weight[rows], padding=1, groups=channels)

    def _attention(self, query: Tensor, key: Tensor) -> Tensor:
        """[N, C, C], zero between heads, in float32."""
        wide = _wide(query.dtype)
        # Products are computed row by row, as a batch of half-precision matrix products, and summed
        # over the rows in float32. The scale keeps the sums over a row within float16; it cancels
        # in the cosines, and is exact, being a power of two.
        scale = 1 / 16
        query, key = query * scale, key * scale
        rows = query.permute(0, 2, 1, 3) @ key.permute(0, 2, 3, 1)
        products = rows.to(wide).sum(dim=1)
        # The authors divide queries and keys by their norms over the pixels; dividing the products
        # is the same, and they are few. Two steps: some runners add a million squares one by one.
        row_norms = (torch.linalg.vector_norm(t, dim=3, dtype=wide) for t in (query, key))
        query_norm, key_norm = (
            torch.linalg.vector_norm(t, dim=2).clamp(min=1e-12 * scale) for t in row_norms
        )
        cosines = products / (query_norm[:, :, None] * key_norm[:, None])
        temperature = self.temperature.to(wide).expand(-1, key.shape[1] // self.heads, 1)
        logits = cosines * temperature.reshape(-1, 1)
        # One matrix product for all heads, of which only the blocks on the diagonal count: it adds
        # less arithmetic than splitting heads would add bytes.
        if self.heads > 1:
            logits = logits.masked_fill(self.other_head, -torch.inf)
        return logits.softmax(dim=2) if self.kind == "softmax" else logits.relu()


class FeedForward(nn.Module):
    """GDFN: half of the hidden channels gate the other half, after a depthwise convolution."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, hidden * 2, 1, bias=False)
        self.dwconv = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * passed)


class TransformerBlock(RepeatedBlock):
    """Attention between channels and the feed-forward part, each after a norm, with a residual."""

    def __init__(self, channels: int, heads: int, config: TransformerUNetConfig) -> None:
        super().__init__()
        norm = LayerNorm2d if config.norm == "with_bias" else BiasFreeLayerNorm
        self.norm1 = named(body=norm(channels, config.norm_eps))
        self.attn = ChannelAttention(channels, heads, config.attention)
        self.norm2 = named(body=norm(channels, config.norm_eps))
        self.ffn = FeedForward(channels, config.expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def transformer_blocks(
    config: TransformerUNetConfig, level: int, channels: int, count: int = 0
) -> nn.Sequential:
    """The blocks of one level: as many as the config says, or ``count``."""
    count, heads = count or config.blocks[level], config.heads[level]
    return nn.Sequential(*(TransformerBlock(channels, heads, config) for _ in range(count)))


def patch_embedding(in_channels: int, channels: int) -> nn.Sequential:
    """A 3x3 convolution into the first level."""
    return named(proj=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))


def downsampling(channels: int) -> nn.Sequential:
    """Half the height and width, twice the channels."""
    convolution = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
    return named(body=nn.Sequential(convolution, nn.PixelUnshuffle(2)))


def upsampling(channels: int) -> nn.Sequential:
    """Twice the height and width, half the channels."""
    convolution = nn.Conv2d(channels, channels * 2, 3, padding=1, bias=False)
    return named(body=nn.Sequential(convolution, nn.PixelShuffle(2)))


class Restormer(RestorationNetwork):
    """Restormer of any published size. See `RestormerConfig`."""

    def __init__(self, config: RestormerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RestormerConfig()
        width = config.width

        def level(*sizes: int) -> nn.Sequential:
            blocks = transformer_blocks(config, *sizes)
            return named(body=blocks) if config.dcpt else blocks

        self.patch_embed = patch_embedding(config.in_channels, width)
        self.encoder_level1 = level(0, width)
        self.down1_2 = downsampling(width)
        self.encoder_level2 = level(1, width * 2)
        self.down2_3 = downsampling(width * 2)
        self.encoder_level3 = level(2, width * 4)
        self.down3_4 = downsampling(width * 4)
        self.latent = level(3, width * 8)
        self.up4_3 = upsampling(width * 8)
        self.reduce_chan_level3 = nn.Conv2d(width * 8, width * 4, 1, bias=False)
        self.decoder_level3 = level(2, width * 4)
        self.up3_2 = upsampling(width * 4)
        self.reduce_chan_level2 = nn.Conv2d(width * 4, width * 2, 1, bias=False)
        self.decoder_level2 = level(1, width * 2)
        # Level one has no such reduction: its decoder and refinement are twice as wide.
        self.up2_1 = upsampling(width * 2)
        self.decoder_level1 = level(0, width * 2)
        self.refinement = level(0, width * 2, config.refinement_blocks)
        if config.dual_pixel:
            self.skip_conv = nn.Conv2d(width, width * 2, 1, bias=False)
        self.output = nn.Conv2d(width * 2, config.out_channels, 3, padding=1, bias=False)

    def feature_modules(self) -> list[str]:
        """The decoders, from the smallest size to the full one."""
        return ["decoder_level3", "decoder_level2", "decoder_level1"]

    def forward(self, image: Tensor) -> Tensor:
        """As of every network; dual pixels have six channels: left R, G, B, then right R, G, B."""
        embedded = self.patch_embed(image.to(self.output.weight.dtype))
        encoded_1 = self.encoder_level1(embedded)
        encoded_2 = self.encoder_level2(self.down1_2(encoded_1))
        encoded_3 = self.encoder_level3(self.down2_3(encoded_2))
        x = self.latent(self.down3_4(encoded_3))

        x = self.reduce_chan_level3(torch.cat([self.up4_3(x), encoded_3], dim=1))
        x = self.decoder_level3(x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), encoded_2], dim=1))
        x = self.decoder_level2(x)
        x = self.decoder_level1(torch.cat([self.up2_1(x), encoded_1], dim=1))
        x = self.refinement(x)
        if self.config.dual_pixel:
            return self.output(x + self.skip_conv(embedded)).to(image.dtype)
        return self.output(x).to(image.dtype) + image


def read_levels(state_dict: Mapping[str, Tensor], body: str = "") -> dict[str, object] | None:
    """Fields that the configs of Restormer and PromptIR share, read from the tensors.

    Args:
        state_dict: canonical names.
        body: the part of a tensor's name between its level's name and its block's number.

    Returns:
        in_channels, out_channels, width, blocks, refinement_blocks, heads, expansion and norm; None
        where tensors are missing or of another rank.
    """
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent", "refinement")
    blocks = []
    for level in levels:
        numbers = re.compile(rf"{level}{re.escape(body)}\.(\d{{1,4}})\.", re.ASCII)
        blocks.append(len({found[1] for key in state_dict if (found := numbers.match(key))}))
    ranks = {"patch_embed.proj.weight": 4, "output.weight": 4}
    for level in levels[:4]:
        ranks[f"{level}{body}.0.attn.temperature"] = 3
        ranks[f"{level}{body}.0.ffn.project_out.weight"] = 4
    if any(key not in state_dict or state_dict[key].ndim != rank for key, rank in ranks.items()):
        return None
    shapes = {key: tuple(state_dict[key].shape) for key in ranks}
    width, in_channels = shapes["patch_embed.proj.weight"][:2]
    return {
        "in_channels": in_channels,
        "out_channels": shapes["output.weight"][0],
        "width": width,
        "blocks": tuple(blocks[:4]),
        "refinement_blocks": blocks[4],
        "heads": tuple(shapes[f"{level}{body}.0.attn.temperature"][0] for level in levels[:4]),
        "expansion": _expansion(
            [shapes[f"{level}{body}.0.ffn.project_out.weight"][:2] for level in levels[:4]]
        ),
        "norm": (
            "with_bias" if f"encoder_level1{body}.0.norm1.body.bias" in state_dict else "bias_free"
        ),
    }


def _expansion(sizes: list[tuple[int, ...]]) -> float:
    """A factor whose products with the channels round down to the hidden channels.

    Many do: the published one if it does, else the shortest decimal.

    Args:
        sizes: channels and hidden channels of blocks.
    """
    lowest = max(hidden / max(channels, 1) for channels, hidden in sizes)
    decimals = (math.ceil(lowest * 10**digits) / 10**digits for digits in range(5))
    for factor in (RestormerConfig.expansion, *decimals):
        if all(int(channels * factor) == hidden for channels, hidden in sizes):
            return factor
    return lowest


def _read_config(state_dict: Mapping[str, Tensor]) -> RestormerConfig | None:
    """Sizes and version, read from the tensors; None if it is not a Restormer."""
    dcpt = "encoder_level1.body.0.attn.temperature" in state_dict
    if "prompt1.prompt_param" in state_dict:
        return None
    fields = read_levels(state_dict, ".body" if dcpt else "")
    if fields is None:
        return None
    return RestormerConfig(
        **fields,  # type: ignore[arg-type]
        dual_pixel="skip_conv.weight" in state_dict,
        dcpt=dcpt,
    )


FP32_PARTS = (
    "the picture and the residual's addition",
    "layer norms",
    "norms and products of queries and keys over the pixels, attention between channels",
)
# The authors' repository (swz30/Restormer) says so; DCPT's (MILab-PKU/dcpt) has no licence.
NON_COMMERCIAL = "Academic Public License (non-commercial)"
UNLICENSED = "none stated by the authors"

# The authors' option files: patches grow from 128 to 384 in training; whole pictures in tests. The
# dB are DCPT's.
_variant = partial(
    NetworkSpec,
    family="restormer",
    paper="Restormer (Zamir et al., CVPR 2022)",
    weights_license=NON_COMMERCIAL,
    training_patch=384,
    fp32_parts=FP32_PARTS,
)

_WITH_BIAS = RestormerConfig()
_BIAS_FREE = RestormerConfig(norm="bias_free")
_GRAY = RestormerConfig(in_channels=1, out_channels=1, norm="bias_free")

FAMILY = NetworkFamily(
    name="restormer",
    variants=by_name(
        _variant(
            "restormer-dcpt",
            task="all in one: haze, rain, noise, motion blur, low light",
            conditions=ALL_IN_ONE,
            config=RestormerConfig(norm="bias_free", dcpt=True),
            paper=PAPER_DCPT,
            weights_license=UNLICENSED,
            training_patch=None,
            paper_psnr=("five tasks, mean", 30.04),
        ),
        _variant("restormer-deraining", task="deraining", config=_WITH_BIAS, conditions=RAIN),
        _variant(
            "restormer-motion-deblurring",
            task="motion deblurring",
            config=_WITH_BIAS,
            conditions=MOTION_BLUR,
        ),
        _variant(
            "restormer-defocus-deblurring",
            task="defocus deblurring of one view",
            conditions=("given", "blur 2"),
            config=_WITH_BIAS,
        ),
        _variant(
            "restormer-dual-pixel-defocus-deblurring",
            task="defocus deblurring of two views",
            config=RestormerConfig(in_channels=6, dual_pixel=True),
        ),
        _variant(
            "restormer-real-denoising",
            task="real-photo denoising",
            config=_BIAS_FREE,
            conditions=CAMERA_NOISE,
        ),
        *(
            _variant(
                f"restormer-gaussian-{colour}-denoising-{level}",
                task=f"Gaussian denoising of {colour} pictures, {noise}",
                config=config,
                conditions=conditions,
            )
            for colour, config in (("color", _BIAS_FREE), ("gray", _GRAY))
            for level, noise, conditions in (
                ("blind", "sigma 0 to 50", ("clean", "sigma 15", "sigma 25", "sigma 50")),
                ("sigma15", "sigma 15", ("sigma 15",)),
                ("sigma25", "sigma 25", ("sigma 25",)),
                ("sigma50", "sigma 50", ("sigma 50",)),
            )
        ),
    ),
    build=Restormer,
    read_config=_read_config,
    small={"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
)
