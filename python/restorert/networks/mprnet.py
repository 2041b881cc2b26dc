"""MPRNet: Multi-Stage Progressive Image Restoration.

Zamir, Arora, Khan, Hayat, Khan, Yang, Shao. CVPR 2021. Three stages restore the picture one after
the other: a U-Net that encodes quarters of the picture and decodes halves, a U-Net that encodes
halves and decodes the whole, and a network without any change of resolution (section 3.1). Cross-
stage feature fusion (3.2) and supervised attention (3.3) join them. No convolution has a bias, and
all PReLUs share one parameter. Parameter names are the authors' own.

Each stage emits a picture (that of the first two comes from the supervised attention), so the first
one or two stages are networks of their own: the early exits of section 5.

It is one file because a deploy form is read beside the layers that it rewrites.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from restorert import ops
from restorert.errors import InputError
from restorert.networks.module import (
    NetworkFamily,
    RepeatedBlock,
    RestorationNetwork,
    Rewrite,
    named,
)
from restorert.networks.rewrites import (
    FUSES_EPILOGUES,
    PRELU_TO_LEAKY_RELU,
    mean_of_convolution,
    product_of_1x1,
    replace_modules,
)
from restorert.spec import CAMERA_NOISE, MOTION_BLUR, RAIN, NetworkConfig, NetworkSpec, by_name

STAGES = 3
ROWS, COLUMNS = 2, 3  # axes of [N, C, H, W]

Features = tuple[Tensor, Tensor, Tensor]
"""Outputs of a U-Net's encoder or decoder, of full, half and quarter resolution."""


@dataclass(frozen=True)
class MPRNetConfig(NetworkConfig):
    """Sizes of an MPRNet.

    Attributes:
        in_channels: channels of the picture, in and out.
        width: channels of the U-Nets' first level.
        unet_growth: channels that each level of the U-Nets adds to those of the level above.
        orsnet_growth: channels that the original-resolution network adds to ``width``.
        cabs: channel attention blocks in each of the three original-resolution blocks.
        reduction: of the channels inside a channel attention.
        stages: 1 to 3; the last one's picture is the result. Without the third, ``orsnet_growth``
            and ``cabs`` have no meaning and are set to their defaults.
    """

    width: int = 96
    unet_growth: int = 48
    orsnet_growth: int = 32
    cabs: int = 8
    reduction: int = 4
    stages: int = STAGES

    def __post_init__(self) -> None:
        sizes = (self.in_channels, self.width, self.unet_growth, self.orsnet_growth, self.cabs)
        counts = (*sizes, self.reduction, self.stages)
        if (
            any(not isinstance(count, int) for count in counts)
            or min(self.in_channels, self.cabs, self.reduction) < 1
            or min(self.unet_growth, self.orsnet_growth) < 0
            or self.width < self.reduction
            or not 1 <= self.stages <= STAGES
        ):
            raise InputError(
                f"{self._family} needs in_channels, cabs and reduction >= 1, growths >= 0, "
                f"width >= reduction and 1 to {STAGES} stages, not in_channels={self.in_channels}, "
                f"width={self.width}, unet_growth={self.unet_growth}, "
                f"orsnet_growth={self.orsnet_growth}, cabs={self.cabs}, "
                f"reduction={self.reduction}, stages={self.stages}"
            )
        if self.stages < STAGES:
            for field in ("orsnet_growth", "cabs"):
                object.__setattr__(self, field, getattr(type(self), field))

    @property
    def size_multiple(self) -> int:
        """A patch is half the picture, and the U-Nets halve it twice."""
        return 8

    @property
    def unet_widths(self) -> tuple[int, int, int]:
        """Channels of the three levels of a U-Net."""
        return self.width, self.width + self.unet_growth, self.width + 2 * self.unet_growth


def _conv(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)


class ChannelAttention(nn.Module):
    """Weights of the fused channel attention and residual sum."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        # Index 1 is the authors' ReLU.
        self.conv_du = nn.Sequential(
            _conv(channels, hidden, 1), nn.Identity(), _conv(hidden, channels, 1)
        )

    def forward(self, r: Tensor, x: Tensor) -> Tensor:
        down, _, up = cast("tuple[nn.Conv2d, nn.Module, nn.Conv2d]", tuple(self.conv_du))
        return ops.channel_attention(r, x, down.weight.flatten(1), up.weight.flatten(1))


class CAB(RepeatedBlock):
    """Channel attention block: two convolutions, channel attention, residual sum."""

    def __init__(self, channels: int, reduction: int, act: nn.PReLU) -> None:
        super().__init__()
        self.CA = ChannelAttention(channels, reduction)
        self.body = nn.Sequential(_conv(channels, channels), act, _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.CA(self.body(x), x)


class SqueezeFirstCAB(RepeatedBlock):
    """A `CAB` that computes its channels' scale before the second convolution.

    The mean that the scale depends on follows from the convolution's input, so the scale and the
    residual sum become its epilogue: its result is not stored and read twice.
    """

    def __init__(self, block: CAB) -> None:
        super().__init__()
        first, self.act, second = block.body
        down, _, up = block.CA.conv_du
        self.first, self.second = cast(nn.Conv2d, first), cast(nn.Conv2d, second)
        self.down, self.up = cast(nn.Conv2d, down), cast(nn.Conv2d, up)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.act(self.first(x))
        mean = mean_of_convolution(hidden, self.second.weight)
        squeezed = torch.relu(mean @ self.down.weight.flatten(1).to(mean.dtype).T)
        scale = torch.sigmoid(squeezed @ self.up.weight.flatten(1).to(mean.dtype).T)
        return self.second(hidden) * scale[:, :, None, None].to(x.dtype) + x


def down_sample(channels: int, growth: int) -> nn.Sequential:
    """Half the resolution, ``growth`` channels more."""
    # The authors' bilinear interpolation by 0.5 is, at even sizes, the mean of 2x2 pixels.
    return named(down=nn.Sequential(nn.AvgPool2d(2), _conv(channels, channels + growth, 1)))


class UpSample(nn.Module):
    """Twice the resolution, ``growth`` channels fewer."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            _conv(channels + growth, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


def _levels(config: MPRNetConfig, act: nn.PReLU) -> Iterator[nn.Sequential]:
    """The blocks of a U-Net's three levels."""
    for channels in config.unet_widths:
        yield nn.Sequential(*(CAB(channels, config.reduction, act) for _ in range(2)))


class Encoder(nn.Module):
    """The U-Net's encoder; ``fusion`` adds the previous stage's features at every level."""

    def __init__(self, config: MPRNetConfig, act: nn.PReLU, *, fusion: bool) -> None:
        super().__init__()
        widths = config.unet_widths
        self.encoder_level1, self.encoder_level2, self.encoder_level3 = _levels(config, act)
        self.down12 = down_sample(widths[0], config.unet_growth)
        self.down23 = down_sample(widths[1], config.unet_growth)
        self.fusion = fusion
        if fusion:
            self.csff_enc1, self.csff_enc2, self.csff_enc3 = (_conv(c, c, 1) for c in widths)
            self.csff_dec1, self.csff_dec2, self.csff_dec3 = (_conv(c, c, 1) for c in widths)

    def forward(
        self, x: Tensor, encoded: Features | None = None, decoded: Features | None = None
    ) -> Features:
        """``encoded`` and ``decoded`` are features of the previous stage, for fusion."""
        enc1: Tensor = self.encoder_level1(x)
        if encoded is not None and decoded is not None:
            enc1 = enc1 + self.csff_enc1(encoded[0]) + self.csff_dec1(decoded[0])
        enc2: Tensor = self.encoder_level2(self.down12(enc1))
        if encoded is not None and decoded is not None:
            enc2 = enc2 + self.csff_enc2(encoded[1]) + self.csff_dec2(decoded[1])
        enc3: Tensor = self.encoder_level3(self.down23(enc2))
        if encoded is not None and decoded is not None:
            enc3 = enc3 + self.csff_enc3(encoded[2]) + self.csff_dec3(decoded[2])
        return enc1, enc2, enc3


class Decoder(nn.Module):
    """The U-Net's decoder, with channel attention on the skip connections."""

    def __init__(self, config: MPRNetConfig, act: nn.PReLU) -> None:
        super().__init__()
        widths = config.unet_widths
        self.decoder_level1, self.decoder_level2, self.decoder_level3 = _levels(config, act)
        self.skip_attn1 = CAB(widths[0], config.reduction, act)
        self.skip_attn2 = CAB(widths[1], config.reduction, act)
        self.up21 = UpSample(widths[0], config.unet_growth)
        self.up32 = UpSample(widths[1], config.unet_growth)

    def forward(self, encoded: Features) -> Features:
        enc1, enc2, enc3 = encoded
        dec3: Tensor = self.decoder_level3(enc3)
        dec2: Tensor = self.decoder_level2(self.up32(dec3) + self.skip_attn2(enc2))
        dec1: Tensor = self.decoder_level1(self.up21(dec2) + self.skip_attn1(enc1))
        return dec1, dec2, dec3


class ORB(nn.Module):
    """Original-resolution block: channel attention blocks, a convolution, the residual sum."""

    def __init__(self, channels: int, config: MPRNetConfig, act: nn.PReLU) -> None:
        super().__init__()
        cabs = (CAB(channels, config.reduction, act) for _ in range(config.cabs))
        self.body = nn.Sequential(*cabs, _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class ORSNet(nn.Module):
    """The third stage: three ORBs; after each, a level of stage two is upsampled and added."""

    def __init__(self, config: MPRNetConfig, act: nn.PReLU) -> None:
        super().__init__()
        width, growth = config.width, config.unet_growth
        channels = width + config.orsnet_growth

        def from_third_level() -> nn.Sequential:
            return nn.Sequential(UpSample(width + growth, growth), UpSample(width, growth))

        self.orb1, self.orb2, self.orb3 = (ORB(channels, config, act) for _ in range(3))
        self.up_enc1, self.up_dec1 = UpSample(width, growth), UpSample(width, growth)
        self.up_enc2, self.up_dec2 = from_third_level(), from_third_level()
        self.conv_enc1, self.conv_enc2, self.conv_enc3 = (
            _conv(width, channels, 1) for _ in range(3)
        )
        self.conv_dec1, self.conv_dec2, self.conv_dec3 = (
            _conv(width, channels, 1) for _ in range(3)
        )

    def forward(self, x: Tensor, encoded: Features, decoded: Features) -> Tensor:
        x = self.orb1(x)
        x = x + self.conv_enc1(encoded[0]) + self.conv_dec1(decoded[0])
        x = self.orb2(x)
        x = x + self.conv_enc2(self.up_enc1(encoded[1])) + self.conv_dec2(self.up_dec1(decoded[1]))
        x = self.orb3(x)
        return (
            x + self.conv_enc3(self.up_enc2(encoded[2])) + self.conv_dec3(self.up_dec2(decoded[2]))
        )


class SupervisedAttention(nn.Module):
    """SAM: makes a stage's picture, which gates the features passed to the next stage.

    Without ``hands_on`` it only makes the picture, as in the last stage of a shortened network.
    """

    def __init__(self, channels: int, picture_channels: int, *, hands_on: bool) -> None:
        super().__init__()
        self.conv2 = _conv(channels, picture_channels, 1)
        if hands_on:
            self.conv1 = _conv(channels, channels, 1)
            self.conv3 = _conv(picture_channels, channels, 1)

    def restore(self, x: Tensor, picture: Tensor) -> Tensor:
        """The stage's picture, in the dtype of ``picture``."""
        residual: Tensor = self.conv2(x)
        return residual.to(picture.dtype) + picture

    def forward(self, x: Tensor, restored: Tensor) -> Tensor:
        """Features for the next stage, gated by the stage's picture."""
        gate = torch.sigmoid(self.conv3(restored.to(x.dtype)))
        return self.conv1(x) * gate + x


def _split(x: Tensor, axis: int) -> Tensor:
    """[N, C, H, W] to a batch of 2N: each picture's first half along ``axis``, then its second."""
    return x.unflatten(axis, (2, x.shape[axis] // 2)).movedim(axis, 1).flatten(0, 1)


def _join(x: Tensor, axis: int) -> Tensor:
    """The inverse of `_split`; along the rows it copies nothing in channels_last."""
    return x.unflatten(0, (x.shape[0] // 2, 2)).movedim(1, axis).flatten(axis, axis + 1)


class UpSampleLast(nn.Module):
    """1x1 convolutions of tensors of one resolution, summed, then upsampled ``times`` times."""

    def __init__(self, weights: list[Tensor], times: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for weight in weights:
            conv = _conv(weight.shape[1], weight.shape[0], 1).to(weight.dtype)
            conv.weight = nn.Parameter(weight)
            self.convs.append(conv)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.times = times

    def forward(self, *levels: Tensor) -> Tensor:
        convolved = [conv(level) for conv, level in zip(self.convs, levels, strict=True)]
        x: Tensor = sum(convolved[1:], convolved[0])
        for _ in range(self.times):
            x = self.up(x)
        return x


class DeployedORSNet(nn.Module):
    """An `ORSNet` that sums stage two's features at their own size and upsamples the sum."""

    def __init__(self, network: ORSNet) -> None:
        super().__init__()
        self.orb1, self.orb2, self.orb3 = network.orb1, network.orb2, network.orb3
        self.conv_enc1, self.conv_dec1 = network.conv_enc1, network.conv_dec1

        def convs(up: nn.Module) -> list[nn.Conv2d]:
            return [conv for conv in up.modules() if isinstance(conv, nn.Conv2d)]

        self.from_second = UpSampleLast(
            [
                product_of_1x1(*convs(network.up_enc1), network.conv_enc2),
                product_of_1x1(*convs(network.up_dec1), network.conv_dec2),
            ],
            times=1,
        )
        self.from_third = UpSampleLast(
            [
                product_of_1x1(*convs(network.up_enc2), network.conv_enc3),
                product_of_1x1(*convs(network.up_dec2), network.conv_dec3),
            ],
            times=2,
        )

    def forward(self, x: Tensor, encoded: Features, decoded: Features) -> Tensor:
        x = self.orb1(x) + self.conv_enc1(encoded[0]) + self.conv_dec1(decoded[0])
        x = self.orb2(x) + self.from_second(encoded[1], decoded[1])
        return self.orb3(x) + self.from_third(encoded[2], decoded[2])


def _upsample_last(module: nn.Module) -> nn.Module | None:
    if isinstance(module, ORSNet):
        return DeployedORSNet(module)
    if isinstance(module, UpSample):
        return UpSampleLast([product_of_1x1(module.up[1])], times=1)
    return None


def _squeeze_first(module: nn.Module) -> nn.Module | None:
    return SqueezeFirstCAB(module) if isinstance(module, CAB) else None


class MPRNet(RestorationNetwork):
    """MPRNet of any published size and number of stages. See `MPRNetConfig`.

    The authors run quarters and halves of the picture one by one, here they are one batch. In both,
    channel attention pools over each patch by itself.
    """

    rewrites = (
        PRELU_TO_LEAKY_RELU,
        Rewrite(
            "upsample-last",
            "V(up(W x)) = up(V W x), V up(x) + W up(y) = up(V x + W y): 1x1 convolutions and sums "
            "commute with bilinear resampling; chains of 1x1 convolutions are one",
            lambda network: replace_modules(network, _upsample_last),
        ),
        Rewrite(
            "squeeze-first",
            "mean(W * h) = sum over taps of W times the mean of what the tap sees of h: the "
            "channels' scale is known before the convolution, and becomes its epilogue",
            lambda network: replace_modules(network, _squeeze_first),
            FUSES_EPILOGUES,
        ),
    )

    def __init__(self, config: MPRNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MPRNetConfig()
        width, pictures, stages = config.width, config.in_channels, config.stages
        act = nn.PReLU()

        def shallow_features() -> nn.Sequential:
            return nn.Sequential(_conv(pictures, width), CAB(width, config.reduction, act))

        self.shallow_feat1 = shallow_features()
        self.stage1_encoder = Encoder(config, act, fusion=False)
        self.stage1_decoder = Decoder(config, act)
        self.sam12 = SupervisedAttention(width, pictures, hands_on=stages > 1)
        if stages > 1:
            self.shallow_feat2 = shallow_features()
            self.concat12 = _conv(width * 2, width)
            self.stage2_encoder = Encoder(config, act, fusion=True)
            self.stage2_decoder = Decoder(config, act)
            self.sam23 = SupervisedAttention(width, pictures, hands_on=stages > 2)
        if stages > 2:
            channels = width + config.orsnet_growth
            self.shallow_feat3 = shallow_features()
            self.concat23 = _conv(width * 2, channels)
            self.stage3_orsnet = ORSNet(config, act)
            self.tail = _conv(channels, pictures)

    def stages(self, image: Tensor) -> list[Tensor]:
        """The pictures of all stages, the restored one last (the authors' code puts it first)."""
        return self._restore((image, image, image))

    def _restore(self, images: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        """The stages' pictures, where stage i is given the i-th image.

        The first two stages add their residual to the next stage's image, the third to its own.
        """
        stages = self.config.stages
        dtype = self.sam12.conv2.weight.dtype
        first, second, third = images
        halves = _split(second, ROWS)

        quarters = _split(_split(first, ROWS), COLUMNS).to(dtype)
        enc1, enc2, enc3 = self.stage1_encoder(self.shallow_feat1(quarters))
        encoded = (_join(enc1, COLUMNS), _join(enc2, COLUMNS), _join(enc3, COLUMNS))
        decoded = self.stage1_decoder(encoded)
        restored = self.sam12.restore(decoded[0], halves)
        pictures = [_join(restored, ROWS)]
        if stages == 1:
            return pictures

        attended = self.sam12(decoded[0], restored)
        shallow = self.shallow_feat2(halves.to(dtype))
        x = self.concat12(torch.cat([shallow, attended], dim=1))
        enc1, enc2, enc3 = self.stage2_encoder(x, encoded, decoded)
        encoded = (_join(enc1, ROWS), _join(enc2, ROWS), _join(enc3, ROWS))
        decoded = self.stage2_decoder(encoded)
        restored = self.sam23.restore(decoded[0], third)
        pictures.append(restored)
        if stages == 2:
            return pictures

        attended = self.sam23(decoded[0], restored)
        shallow = self.shallow_feat3(third.to(dtype))
        x = self.concat23(torch.cat([shallow, attended], dim=1))
        residual: Tensor = self.tail(self.stage3_orsnet(x, encoded, decoded))
        pictures.append(residual.to(third.dtype) + third)
        return pictures


# What each stage adds to a state dict. The supervised attention's gate counts to the next stage.
_OF_STAGE = (
    ("shallow_feat1.", "stage1_encoder.", "stage1_decoder.", "sam12.conv2."),
    (
        *("sam12.conv1.", "sam12.conv3.", "shallow_feat2.", "concat12."),
        *("stage2_encoder.", "stage2_decoder.", "sam23.conv2."),
    ),
    ("sam23.conv1.", "sam23.conv3.", "shallow_feat3.", "concat23.", "stage3_orsnet.", "tail."),
)


def sizes_from_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Fields of `MPRNetConfig`, read from the tensors; None where they are not there."""

    def shape(name: str) -> tuple[int, ...]:
        tensor = state_dict.get(name)
        return tuple(tensor.shape) if tensor is not None and tensor.ndim == 4 else (0, 0, 0, 0)

    width, in_channels = shape("shallow_feat1.0.weight")[:2]
    hidden = shape("shallow_feat1.1.CA.conv_du.0.weight")[0]
    second = shape("stage1_encoder.down12.down.1.weight")[0]
    if min(width, hidden, second) < 1:
        return None
    stages = 1 + sum(
        any(name.startswith(prefixes) for name in state_dict) for prefixes in _OF_STAGE[1:]
    )
    sizes = {
        "in_channels": in_channels,
        "width": width,
        "unet_growth": second - width,
        "reduction": width // hidden,
        "stages": stages,
    }
    if stages == STAGES:
        body = {
            name.split(".")[3]
            for name in state_dict
            if name.startswith("stage3_orsnet.orb1.body.") and name.endswith(".CA.conv_du.0.weight")
        }
        sizes["cabs"] = len(body)
        sizes["orsnet_growth"] = shape("tail.weight")[1] - width
    return sizes


def _read_config(state_dict: Mapping[str, Tensor]) -> MPRNetConfig | None:
    """Widths and stages, read from the tensors; None if it is not an MPRNet."""
    sizes = sizes_from_state_dict(state_dict)
    if sizes is None or any(name.startswith("memory.") for name in state_dict):
        return None
    return MPRNetConfig(**sizes)


def tensors_for(state_dict: Mapping[str, Tensor], config: MPRNetConfig) -> Mapping[str, Tensor]:
    """The tensors without those of stages that ``config`` does not have."""
    later = tuple(prefix for prefixes in _OF_STAGE[config.stages :] for prefix in prefixes)
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith(later)}


_DEBLUR = MPRNetConfig()
_DERAIN = MPRNetConfig(width=40, unet_growth=20, orsnet_growth=16)

# swz30/MPRNet's LICENSE.md covers the released weights too.
# Patches: TRAIN_PS of the authors' training.yml (the paper says 256 for all tasks). Datasets and dB
# are the paper's.
_variant = partial(
    NetworkSpec,
    family="mprnet",
    paper="MPRNet (Zamir et al., CVPR 2021)",
    weights_license="Academic Public License: non-commercial use",
    training_patch=256,
    fp32_parts=("the picture and the residual's addition", "means and gates of channel_attention"),
)
_deblurring = partial(_variant, task="motion deblurring", conditions=MOTION_BLUR)

FAMILY = NetworkFamily(
    name="mprnet",
    variants=by_name(
        _deblurring("mprnet-deblur", config=_DEBLUR, paper_psnr=("GoPro", 32.66)),
        _deblurring(
            "mprnet-deblur-1stage", config=replace(_DEBLUR, stages=1), paper_psnr=("GoPro", 30.43)
        ),
        _deblurring(
            "mprnet-deblur-2stage", config=replace(_DEBLUR, stages=2), paper_psnr=("GoPro", 31.81)
        ),
        _variant(
            "mprnet-denoise",
            task="real-photo denoising",
            conditions=CAMERA_NOISE,
            config=MPRNetConfig(width=80),
            training_patch=128,
            paper_psnr=("SIDD", 39.71),
        ),
        _variant(
            "mprnet-derain",
            task="deraining",
            conditions=RAIN,
            config=_DERAIN,
            paper_psnr=("Rain100L", 36.40),
        ),
    ),
    build=MPRNet,
    read_config=_read_config,
    small={"width": 8, "unet_growth": 4, "orsnet_growth": 4, "cabs": 1},
    tensors_for=tensors_for,
)
