"""PromptIR: Prompting for All-in-One Blind Image Restoration.

Potlapalli, Zamir, Khan, Khan. NeurIPS 2023. A Restormer whose decoder levels are joined by prompts:
learned feature maps, weighted by the level's features and concatenated with them (section 3.2).
DCPT (Hu et al., ICLR 2025) trains the same network. Parameter names are the authors' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RestorationNetwork
from restorert.networks.restormer import (
    FP32_PARTS,
    NON_COMMERCIAL,
    PAPER_DCPT,
    UNLICENSED,
    TransformerBlock,
    TransformerUNetConfig,
    downsampling,
    patch_embedding,
    read_levels,
    transformer_blocks,
    upsampling,
)
from restorert.spec import ALL_IN_ONE, NetworkSpec, by_name


@dataclass(frozen=True)
class PromptIRConfig(TransformerUNetConfig):
    """Sizes of a PromptIR.

    Attributes:
        in_channels: channels of the picture, in and out.
        heads: of the attention at the four levels; blocks after a prompt have those of the third.
        prompts: number of prompts that each level mixes.
        prompt_channels: of the prompts of levels one, two and three.
        prompt_sizes: their height and width in pixels.
        unused_tensors: the file holds the projections that the authors' module defines and never
            uses (PromptIR's own checkpoint does, DCPT's does not).
    """

    prompts: int = 5
    prompt_channels: tuple[int, int, int] = (64, 128, 320)
    prompt_sizes: tuple[int, int, int] = (64, 32, 16)
    unused_tensors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_channels < 1:
            raise InputError(f"PromptIR needs in_channels >= 1, not {self.in_channels}")
        sizes = (*self.prompt_channels, *self.prompt_sizes, self.prompts)
        if len(self.prompt_channels) != 3 or len(sizes) != 7 or min(sizes) < 1:
            raise InputError(
                "PromptIR needs prompts >= 1 and positive prompt_channels and prompt_sizes of three"
                f" levels, not {self.prompts}, {self.prompt_channels} and {self.prompt_sizes}"
            )
        if any(channels % self.heads[2] for channels in self.prompted_channels):
            raise InputError(
                f"PromptIR's heads of the third level must divide the channels with prompts "
                f"{list(self.prompted_channels)}, not {self.heads[2]}"
            )

    @property
    def prompted_channels(self) -> tuple[int, int, int]:
        """Channels of the features with the prompts of levels one, two and three."""
        one, two, three = self.prompt_channels
        return self.width * 2 + one, self.width * 4 + two, self.width * 8 + three


class PromptBlock(nn.Module):
    """Prompts, weighted by the features' mean and resized to the features."""

    def __init__(self, prompts: int, channels: int, size: int, features: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompts, channels, size, size))
        self.linear_layer = nn.Linear(features, prompts)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        # channels_last is of four dimensions, and torch refuses it for five.
        return super()._apply(lambda t: fn(t[0])[None] if t.ndim == 5 else fn(t), recurse)

    def forward(self, x: Tensor) -> Tensor:
        # In float32: a sum over all pixels overflows float16.
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.to(wide).mean(dim=(2, 3))
        linear = self.linear_layer
        weights = F.linear(mean, linear.weight.to(wide), linear.bias.to(wide)).softmax(dim=1)
        mixed = (weights.to(x.dtype) @ self.prompt_param[0].flatten(1)).unflatten(
            1, tuple(self.prompt_param.shape[2:])
        )
        resized = F.interpolate(mixed, size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.conv3x3(resized)


class PromptIR(RestorationNetwork):
    """PromptIR of any published size. See `PromptIRConfig`."""

    def __init__(self, config: PromptIRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PromptIRConfig()
        width, heads = config.width, config.heads
        prompted = config.prompted_channels
        level = partial(transformer_blocks, config)

        def prompt(index: int) -> PromptBlock:
            channels = config.prompt_channels[index]
            size, features = config.prompt_sizes[index], prompted[index] - channels
            return PromptBlock(config.prompts, channels, size, features)

        self.patch_embed = patch_embedding(config.in_channels, width)
        self.prompt1, self.prompt2, self.prompt3 = prompt(0), prompt(1), prompt(2)
        self.encoder_level1 = level(0, width)
        self.down1_2 = downsampling(width)
        self.encoder_level2 = level(1, width * 2)
        self.down2_3 = downsampling(width * 2)
        self.encoder_level3 = level(2, width * 4)
        self.down3_4 = downsampling(width * 4)
        self.latent = level(3, width * 8)
        self.noise_level3 = TransformerBlock(prompted[2], heads[2], config)
        self.reduce_noise_level3 = nn.Conv2d(prompted[2], width * 4, 1, bias=False)
        self.up4_3 = upsampling(width * 4)
        self.reduce_chan_level3 = nn.Conv2d(width * 6, width * 4, 1, bias=False)
        self.decoder_level3 = level(2, width * 4)
        self.noise_level2 = TransformerBlock(prompted[1], heads[2], config)
        self.reduce_noise_level2 = nn.Conv2d(prompted[1], width * 4, 1, bias=False)
        self.up3_2 = upsampling(width * 4)
        self.reduce_chan_level2 = nn.Conv2d(width * 4, width * 2, 1, bias=False)
        self.decoder_level2 = level(1, width * 2)
        self.noise_level1 = TransformerBlock(prompted[0], heads[2], config)
        self.reduce_noise_level1 = nn.Conv2d(prompted[0], width * 2, 1, bias=False)
        self.up2_1 = upsampling(width * 2)
        self.decoder_level1 = level(0, width * 2)
        self.refinement = level(0, width * 2, config.refinement_blocks)
        self.output = nn.Conv2d(width * 2, config.in_channels, 3, padding=1, bias=False)
        if config.unused_tensors:
            self._add_unused()

    def _add_unused(self) -> None:
        """The authors' module defines these and never uses them; it fixes their sizes."""
        width, channels = self.config.width, self.config.prompt_channels
        reduced = (channels[0], channels[1], channels[2] * 4 // 5)
        for index in range(3):
            features = width * 2**index
            reduction = nn.Conv2d(channels[index], reduced[index], 1, bias=False)
            projection = nn.Conv2d(features + reduced[index], features, 1, bias=False)
            self.add_module(f"chnl_reduce{index + 1}", reduction)
            self.add_module(f"reduce_noise_channel_{index + 1}", projection)

    def feature_modules(self) -> list[str]:
        """The convolutions after the prompts, from the smallest size to the largest."""
        return ["reduce_noise_level3", "reduce_noise_level2", "reduce_noise_level1"]

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image.to(self.output.weight.dtype))
        encoded_1 = self.encoder_level1(x)
        encoded_2 = self.encoder_level2(self.down1_2(encoded_1))
        encoded_3 = self.encoder_level3(self.down2_3(encoded_2))
        x = self.latent(self.down3_4(encoded_3))

        x = self.noise_level3(torch.cat([x, self.prompt3(x)], dim=1))
        x = self.up4_3(self.reduce_noise_level3(x))
        x = self.reduce_chan_level3(torch.cat([x, encoded_3], dim=1))
        x = self.decoder_level3(x)

        x = self.noise_level2(torch.cat([x, self.prompt2(x)], dim=1))
        x = self.up3_2(self.reduce_noise_level2(x))
        x = self.reduce_chan_level2(torch.cat([x, encoded_2], dim=1))
        x = self.decoder_level2(x)

        x = self.noise_level1(torch.cat([x, self.prompt1(x)], dim=1))
        x = self.up2_1(self.reduce_noise_level1(x))
        x = self.refinement(self.decoder_level1(torch.cat([x, encoded_1], dim=1)))
        return self.output(x).to(image.dtype) + image


def _read_config(state_dict: Mapping[str, Tensor]) -> PromptIRConfig | None:
    """Sizes, read from the tensors; None if it is not a PromptIR."""
    names = [f"prompt{level}.prompt_param" for level in (1, 2, 3)]
    if any(name not in state_dict or state_dict[name].ndim != 5 for name in names):
        return None
    fields = read_levels(state_dict)
    if fields is None:
        return None
    shapes = [tuple(state_dict[name].shape) for name in names]
    if fields.pop("out_channels") != fields["in_channels"]:
        return None
    return PromptIRConfig(
        **fields,  # type: ignore[arg-type]
        prompts=shapes[0][1],
        prompt_channels=(shapes[0][2], shapes[1][2], shapes[2][2]),
        prompt_sizes=(shapes[0][3], shapes[1][3], shapes[2][3]),
        unused_tensors="chnl_reduce1.weight" in state_dict,
    )


_variant = partial(
    NetworkSpec,
    family="promptir",
    fp32_parts=(*FP32_PARTS, "weights of the prompts"),
)

FAMILY = NetworkFamily(
    name="promptir",
    variants=by_name(
        _variant(
            "promptir-dcpt",
            task="all in one: haze, rain, noise, motion blur, low light",
            conditions=ALL_IN_ONE,
            config=PromptIRConfig(),
            paper=PAPER_DCPT,
            weights_license=UNLICENSED,
            paper_psnr=("five tasks, mean", 30.31),
        ),
        _variant(
            "promptir",
            task="all in one: noise, rain, haze",
            conditions=("given", "sigma 15", "sigma 25", "sigma 50", "rain", "haze"),
            config=PromptIRConfig(unused_tensors=True),
            paper="PromptIR (Potlapalli et al., NeurIPS 2023)",
            weights_license=NON_COMMERCIAL,
            training_patch=128,
            # The authors' script casts to uint8 without rounding; DCPT's rounds.
            rounding="truncate",
        ),
    ),
    build=PromptIR,
    read_config=_read_config,
    small={
        "width": 8,
        "blocks": (1, 1, 1, 1),
        "refinement_blocks": 1,
        "prompts": 2,
        "prompt_channels": (8, 12, 20),
        "prompt_sizes": (6, 5, 3),
    },
)
