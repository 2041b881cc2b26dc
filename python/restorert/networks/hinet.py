"""HINet: Half Instance Normalization Network for Image Restoration.

Chen, Lu, Zhang, Chu, Chen. CVPR Workshops 2021. Two U-Nets of ``depth`` levels; encoder blocks
normalise half of their channels (section 3.2); cross-stage feature fusion and the supervised
attention module join the two (section 3.1, after MPRNet). Parameter names are the authors' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restorert import ops
from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RestorationNetwork, Rewrite
from restorert.networks.rewrites import convolution_of
from restorert.spec import (
    CAMERA_NOISE,
    MOTION_BLUR,
    MOTION_BLUR_AND_JPEG,
    RAIN,
    NetworkConfig,
    NetworkSpec,
    by_name,
)


@dataclass(frozen=True)
class HINetConfig(NetworkConfig):
    """Sizes of a HINet.

    Attributes:
        in_channels: channels of the picture, in and out.
        width: channels of the first level; level i has ``width * 2**i``. Even.
        depth: levels of each U-Net, >= 2.
        hin_levels: first and last encoder level with half instance norm, both included; (0, -1)
            for none.
        negative_slope: of every leaky ReLU.
    """

    width: int = 64
    depth: int = 5
    hin_levels: tuple[int, int] = (0, 4)
    negative_slope: float = 0.2

    def __post_init__(self) -> None:
        if self.depth < 2 or self.width < 2 or self.width % 2 or self.in_channels < 1:
            raise InputError(
                f"HINet needs depth >= 2, an even width >= 2 and in_channels >= 1, "
                f"not depth={self.depth}, width={self.width}, in_channels={self.in_channels}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: one halving per level, except the last."""
        return 2 ** (self.depth - 1)


class HalfInstanceNorm(nn.Module):
    """Instance norm on the first half of the channels, then leaky ReLU on all of them, fused."""

    def __init__(self, channels: int, negative_slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels // 2))
        self.bias = nn.Parameter(torch.zeros(channels // 2))
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return ops.half_instance_norm(x, self.weight, self.bias, negative_slope=self.negative_slope)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 shortcut; with half instance norm it is the HIN block."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        negative_slope: float,
        *,
        hin: bool = False,
        csff: bool = False,
    ) -> None:
        super().__init__()
        self.identity = nn.Conv2d(in_channels, channels, 1)
        self.conv_1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.relu = nn.LeakyReLU(negative_slope)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        if csff:
            self.csff_enc = nn.Conv2d(channels, channels, 3, padding=1)
            self.csff_dec = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = HalfInstanceNorm(channels, negative_slope) if hin else None

    def forward(self, x: Tensor, enc: Tensor | None = None, dec: Tensor | None = None) -> Tensor:
        out = self.conv_1(x)
        out = self.norm(out) if self.norm is not None else self.relu(out)
        out = self.relu(self.conv_2(out)) + self.identity(x)
        if enc is not None and dec is not None:
            out = out + self.csff_enc(enc) + self.csff_dec(dec)
        return out


class SplitHINConv(nn.Module):
    """A convolution and its half instance norm, as one convolution for each half of the channels.

    For graph compilers: the normalised half is a tensor of its own, neither sliced nor copied back.
    """

    def __init__(self, conv: nn.Conv2d, norm: HalfInstanceNorm) -> None:
        super().__init__()
        half = conv.out_channels // 2
        # Without a bias: subtracting the channel's mean would cancel it.
        self.normalised = convolution_of(conv.weight[:half], None, conv)
        self.plain = convolution_of(conv.weight[half:], cast(Tensor, conv.bias)[half:], conv)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        slope = self.norm.negative_slope
        weight, bias = self.norm.weight, self.norm.bias
        # nn.functional.instance_norm refuses pictures of one pixel.
        normalised = torch.instance_norm(
            self.normalised(x), weight, bias, None, None, True, 0.0, 1e-5, False
        )
        halves = [F.leaky_relu(half, slope) for half in (normalised, self.plain(x))]
        return torch.cat(halves, dim=1)


def _split_half_instance_norms(network: HINet) -> int:
    places = 0
    for block in network.modules():
        if isinstance(block, ConvBlock) and block.norm is not None:
            block.conv_1 = SplitHINConv(block.conv_1, block.norm)  # type: ignore[assignment]
            block.norm = nn.Identity()  # type: ignore[assignment]
            places += 1
    return places


def _drop_cancelled_biases(network: HINet) -> int:
    places = 0
    for block in network.modules():
        if isinstance(block, ConvBlock) and isinstance(block.norm, HalfInstanceNorm):
            assert block.conv_1.bias is not None
            block.conv_1.bias.data[: block.conv_1.out_channels // 2] = 0.0
            places += 1
    return places


class DownBlock(ConvBlock):
    """An encoder level: the block and, except at the last level, a 4x4 convolution of stride 2."""

    def __init__(
        self, in_channels: int, channels: int, slope: float, *, hin: bool, csff: bool, last: bool
    ) -> None:
        super().__init__(in_channels, channels, slope, hin=hin, csff=csff and not last)
        self.downsample = (
            None if last else nn.Conv2d(channels, channels, 4, stride=2, padding=1, bias=False)
        )


class UpBlock(nn.Module):
    """A decoder level: 2x2 transposed convolution of stride 2, concatenated with the skip."""

    def __init__(self, in_channels: int, channels: int, slope: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, channels, 2, stride=2)
        self.conv_block = ConvBlock(in_channels, channels, slope)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(torch.cat([self.up(x), skip], dim=1))


class SupervisedAttention(nn.Module):
    """SAM: stage one's picture gates the features handed to stage two."""

    def __init__(self, channels: int, picture_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, picture_channels, 3, padding=1)
        self.conv3 = nn.Conv2d(picture_channels, channels, 3, padding=1)

    def forward(self, x: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.conv2(x).to(picture.dtype) + picture
        gate = torch.sigmoid(self.conv3(restored.to(x.dtype)))
        return self.conv1(x) * gate + x, restored


class HINet(RestorationNetwork):
    """HINet of any published size. See `HINetConfig`."""

    rewrites = (
        Rewrite(
            "split-half-instance-norm",
            "HIN(W x + b) = [IN(W1 x), W2 x + b2]: no slice, no copy; b1 cancels in x - mean(x)",
            _split_half_instance_norms,
            # TensorRT has the plugin, torch and CUDA the kernel; OpenVINO gains nothing from it.
            frozenset({"tensorrt_rtx"}),
        ),
        Rewrite(
            "drop-cancelled-bias",
            "IN(y + b) = IN(y): the bias of the normalised half",
            _drop_cancelled_biases,
        ),
    )

    def __init__(self, config: HINetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HINetConfig()
        slope, width, depth = config.negative_slope, config.width, config.depth
        channels = [width * 2**level for level in range(depth)]
        first, last = config.hin_levels

        def encoder(csff: bool) -> nn.ModuleList:
            return nn.ModuleList(
                DownBlock(
                    channels[max(level - 1, 0)],
                    channels[level],
                    slope,
                    hin=first <= level <= last,
                    csff=csff,
                    last=level == depth - 1,
                )
                for level in range(depth)
            )

        def decoder() -> nn.ModuleList:
            return nn.ModuleList(
                UpBlock(channels[level + 1], channels[level], slope)
                for level in reversed(range(depth - 1))
            )

        def skips() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(channels[level], channels[level], 3, padding=1)
                for level in reversed(range(depth - 1))
            )

        self.conv_01 = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.conv_02 = nn.Conv2d(config.in_channels, width, 3, padding=1)
        self.down_path_1 = encoder(csff=False)
        self.down_path_2 = encoder(csff=True)
        self.up_path_1 = decoder()
        self.up_path_2 = decoder()
        self.skip_conv_1 = skips()
        self.skip_conv_2 = skips()
        self.sam12 = SupervisedAttention(width, config.in_channels)
        self.cat12 = nn.Conv2d(width * 2, width, 1)
        self.last = nn.Conv2d(width, config.in_channels, 3, padding=1)

    def stages(self, image: Tensor) -> list[Tensor]:
        x = image.to(self.conv_01.weight.dtype)

        features = self.conv_01(x)
        encoded: list[Tensor] = []
        for down in cast("list[DownBlock]", self.down_path_1):
            features = down(features)
            if down.downsample is not None:
                encoded.append(features)
                features = down.downsample(features)
        decoded: list[Tensor] = []
        for up, skip, enc in zip(self.up_path_1, self.skip_conv_1, reversed(encoded), strict=True):
            features = up(features, skip(enc))
            decoded.append(features)
        attended, stage_one = self.sam12(features, image)

        features = self.cat12(torch.cat([self.conv_02(x), attended], dim=1))
        skipped: list[Tensor] = []
        for level, down in enumerate(cast("list[DownBlock]", self.down_path_2)):
            if down.downsample is None:
                features = down(features)
            else:
                features = down(features, encoded[level], decoded[-level - 1])
                skipped.append(features)
                features = down.downsample(features)
        for up, skip, enc in zip(self.up_path_2, self.skip_conv_2, reversed(skipped), strict=True):
            features = up(features, skip(enc))
        restored = self.last(features).to(image.dtype) + image
        return [stage_one, restored]


def _read_config(state_dict: Mapping[str, Tensor]) -> HINetConfig:
    """Width, depth and normalised levels, read from the tensors."""
    levels = {
        int(key.split(".")[1])
        for key in state_dict
        if key.startswith("down_path_1.") and key.split(".")[1].isdigit()
    }
    normalised = sorted(
        level for level in levels if f"down_path_1.{level}.norm.weight" in state_dict
    )
    width, in_channels = state_dict["conv_01.weight"].shape[:2]
    return HINetConfig(
        in_channels=in_channels,
        width=width,
        depth=len(levels),
        hin_levels=(normalised[0], normalised[-1]) if normalised else (0, -1),
    )


_ALL_LEVELS = HINetConfig()
_DEEP_LEVELS = replace(_ALL_LEVELS, hin_levels=(3, 4))

# The authors' repository (megvii-model/HINet) is MIT-licensed and covers the released weights.
# Datasets and dB are the paper's.
_variant = partial(
    NetworkSpec,
    family="hinet",
    paper="HINet (Chen et al., CVPRW 2021)",
    weights_license="MIT",
    training_patch=256,
    fp32_parts=("the picture and the residual's addition", "statistics of half_instance_norm"),
)

# Tiles: the authors' option files test GoPro, REDS and Rain13k on averaged 256x256 crops
# (val.grids, val.crop_size), SIDD on its whole 256x256 blocks.
FAMILY = NetworkFamily(
    name="hinet",
    variants=by_name(
        _variant("hinet", task="general restoration", config=_ALL_LEVELS),
        _variant(
            "hinet-gopro",
            task="motion deblurring",
            conditions=MOTION_BLUR,
            config=_DEEP_LEVELS,
            tile=256,
            paper_psnr=("GoPro", 32.71),
        ),
        _variant(
            "hinet-reds",
            task="deblurring and JPEG artefacts",
            conditions=MOTION_BLUR_AND_JPEG,
            config=_DEEP_LEVELS,
            tile=256,
            paper_psnr=("REDS val-300", 28.83),
        ),
        _variant("hinet-rain", task="deraining", config=_ALL_LEVELS, tile=256, conditions=RAIN),
        _variant(
            "hinet-sidd",
            task="real-photo denoising",
            conditions=CAMERA_NOISE,
            config=_ALL_LEVELS,
            paper_psnr=("SIDD", 39.99),
        ),
        _variant(
            "hinet-sidd-0.5x",
            task="real-photo denoising",
            conditions=CAMERA_NOISE,
            config=replace(_ALL_LEVELS, width=32),
            paper_psnr=("SIDD", 39.80),
        ),
        # 1.4 M parameters, trained by `restorert.training`; normalised on the last two levels, as
        # GoPro's variant is.
        _variant(
            "hinet-tiny",
            task="noise and JPEG artefacts",
            config=HINetConfig(width=16, depth=4, hin_levels=(2, 3)),
            conditions=(
                "clean",
                *(f"sigma {sigma}" for sigma in (5, 15, 25, 40, 50)),
                *(f"jpeg {quality}" for quality in (30, 60, 90)),
                "sigma 15 + jpeg 50",
                "sigma 40 + jpeg 80",
            ),
            training_patch=128,
            weights_license="Apache-2.0",
        ),
    ),
    build=HINet,
    read_config=_read_config,
    marks=("conv_01.weight", "conv_02.weight", "sam12.conv1.weight", "cat12.weight"),
    small={"width": 8},
)
