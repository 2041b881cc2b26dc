"""NAFNet: a nonlinear activation free network for image restoration.

Chen, Chu, Zhang, Sun. "Simple Baselines for Image Restoration", ECCV 2022. A U-Net whose blocks
have neither ReLU nor softmax: layer norm over channels (section 3.2), the simple gate (3.4) and the
simplified channel attention (3.3). DCPT (Hu et al., ICLR 2025) trains the same network for five
degradations at once. Tested with the test-time local converter (TLC; Chu et al., "Improving Image
Restoration by Revisiting Global Information Aggregation", ECCV 2022), the attention pools over a
window instead of the picture. Parameter names are the authors' own.

It is one file because a deploy form is read beside the layers that it rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert import ops
from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RestorationNetwork, Rewrite
from restorert.networks.rewrites import FUSES_EPILOGUES, convolution_of, replace_modules
from restorert.spec import (
    ALL_IN_ONE,
    CAMERA_NOISE,
    MOTION_BLUR,
    MOTION_BLUR_AND_JPEG,
    NetworkConfig,
    NetworkSpec,
    by_name,
)

MAX_LEVELS = 8


@dataclass(frozen=True)
class NAFNetConfig(NetworkConfig):
    """Sizes of a NAFNet.

    Attributes:
        in_channels: channels of the picture, in and out.
        width: channels at full size; each of the levels below has twice those of the one above.
        encoder_blocks: blocks of each encoder level, from full size down; each level halves.
        middle_blocks: blocks between encoder and decoder, at the smallest size.
        decoder_blocks: blocks of each decoder level, up to full size; as many levels.
        numbered_decoders: checkpoints name decoders ``decoder0.`` (DCPT), not ``decoders.0.`` (the
            original).
        local_window: TLC: side in pixels, at full size, of the window that channel attention pools
            over; None pools over the picture, as in training. Weights are the same for both.
    """

    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 1, 1, 28)
    middle_blocks: int = 1
    decoder_blocks: tuple[int, ...] = (1, 1, 1, 1)
    numbered_decoders: bool = False
    local_window: int | None = None

    def __post_init__(self) -> None:
        for name in ("encoder_blocks", "decoder_blocks"):
            try:
                object.__setattr__(self, name, tuple(getattr(self, name)))
            except TypeError:
                raise InputError(f"NAFNet's {name} needs a number for each level") from None
        blocks = (*self.encoder_blocks, self.middle_blocks, *self.decoder_blocks)
        levels = len(self.encoder_blocks)
        if (
            not 1 <= levels == len(self.decoder_blocks) <= MAX_LEVELS
            or not all(isinstance(n, int) and n >= 1 for n in blocks)
            or self.width < 1
            or self.in_channels < 1
        ):
            raise InputError(
                f"NAFNet needs 1 to {MAX_LEVELS} levels, as many in the decoder as in the encoder, "
                "of at least one block each, width >= 1 and in_channels >= 1, not "
                f"encoder_blocks={self.encoder_blocks}, middle_blocks={self.middle_blocks}, "
                f"decoder_blocks={self.decoder_blocks}, width={self.width}, "
                f"in_channels={self.in_channels}"
            )
        if self.local_window is not None and self.local_window < self.size_multiple:
            raise InputError(
                f"NAFNet's local_window must be None or >= {self.size_multiple} pixels, one at "
                f"the smallest level, not {self.local_window}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: one halving per level."""
        return int(2 ** len(self.encoder_blocks))


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel, fused; statistics in float32."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm_2d(x, self.weight, self.bias, self.eps)


Bounds = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Start and end of the window around each row, [H], and around each column, [W]."""


def window_bounds(x: Tensor, window: int) -> Bounds:
    """The window of TLC around each pixel of ``x`` [N, C, H, W].

    It has min(window, size) pixels a side and is shifted inwards at the border, which equals
    pooling without padding and then replicating the border. There are only tensors and no branches,
    so that one exported graph serves sizes below and above the window.
    """

    def axis_bounds(axis: int) -> tuple[Tensor, Tensor]:
        size = torch.scalar_tensor(x.shape[axis], dtype=torch.int64, device=x.device)
        last = torch.clamp(size - window, min=0)
        position = torch.arange(x.shape[axis], device=x.device)
        start = torch.minimum(torch.clamp(position - (window - 1) // 2, min=0), last)
        return start, torch.minimum(start + window, size)

    return axis_bounds(-2), axis_bounds(-1)


def local_mean(x: Tensor, bounds: Bounds) -> Tensor:
    """Mean over the window around each pixel, as TLC pools.

    Args:
        x: [N, C, H, W].
        bounds: the windows, as `window_bounds` gives them.

    Returns:
        Like ``x``, in float32 (float64 for float64): float16 cannot hold the sums.
    """
    mean = x.to(torch.promote_types(x.dtype, torch.float32))
    # One axis at a time, so that the running sums are of a row's length, not of a picture's.
    for axis, pad in ((-1, (1, 0)), (-2, (0, 0, 1, 0))):
        start, end = bounds[axis]
        sums = F.pad(mean.cumsum(axis), pad)
        difference = sums.index_select(axis, end) - sums.index_select(axis, start)
        count = (end - start).to(mean.dtype)
        mean = difference / (count if axis == -1 else count[:, None])
    return mean


class ChannelAttention(nn.ModuleList):
    """Simplified channel attention: the scale of each channel, from the pooled gate."""

    def __init__(self, channels: int) -> None:
        # The gate's op pools; the identity keeps the index in the weights' names.
        super().__init__([nn.Identity(), nn.Conv2d(channels, channels, 1)])

    def forward(self, mean: Tensor) -> Tensor:
        """The gate's mean, [N, C] over the picture or [N, C, H, W] over windows, -> the scale."""
        pooled = mean if mean.ndim == 4 else mean[:, :, None, None]
        convolution = cast(nn.Conv2d, self[1])
        return convolution(pooled.to(convolution.weight.dtype))


def simple_gate(x: Tensor) -> Tensor:
    """[N, 2C, H, W] -> the product of the two halves, [N, C, H, W]."""
    first, second = x.chunk(2, dim=1)
    return first * second


def gate(gates: Tensor, bounds: Bounds | None) -> tuple[Tensor, Tensor]:
    """[N, 2C, H, W] -> the gated tensor [N, C, H, W] and its mean, over the picture or windows."""
    if bounds is None:
        return ops.simple_gate_mean(gates)
    gated = simple_gate(gates)
    return gated, local_mean(gated, bounds)


class NAFBlock(nn.Module):
    """Two residual halves: a gated depthwise convolution with attention, a gated 1x1 pair."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels * 2, 1)
        self.conv2 = nn.Conv2d(channels * 2, channels * 2, 3, padding=1, groups=channels * 2)
        self.sca = ChannelAttention(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, channels * 2, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        # The authors start from zeros, which make every block the identity. With ones, tests of
        # random weights check the blocks, too.
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor, bounds: Bounds | None) -> Tensor:
        gated, mean = gate(self.conv2(self.conv1(self.norm1(x))), bounds)
        x = x + self.conv3(gated * self.sca(mean)) * self.beta
        gated = simple_gate(self.conv4(self.norm2(x)))
        return x + self.conv5(gated) * self.gamma


def _folded(
    conv: nn.Conv2d, *, before: LayerNorm2d | None = None, after: Tensor | None = None
) -> nn.Conv2d:
    """A 1x1 convolution with the norm's weight and bias before it, or a scale after it, folded in.

    Computed in float64, so that folding adds no error.
    """
    weight, bias = conv.weight.double(), cast(Tensor, conv.bias).double()
    if before is not None:
        bias = bias + weight.flatten(1) @ before.bias.double()
        weight = weight * before.weight.double()[:, None, None]
    if after is not None:
        bias = bias * after.flatten().double()
        weight = weight * after.flatten().double()[:, None, None, None]
    return convolution_of(weight, bias, conv)


def _halves(convolutions: nn.ModuleList) -> nn.ModuleList:
    """Two convolutions, each with half of the outputs."""
    (conv,) = (cast(nn.Conv2d, conv) for conv in convolutions)
    middle = conv.out_channels // 2
    parts = slice(None, middle), slice(middle, None)
    biases = cast(Tensor, conv.bias)
    return nn.ModuleList(convolution_of(conv.weight[part], biases[part], conv) for part in parts)


class NormalisedConv(nn.Module):
    """Layer norm, then a 1x1 convolution, in one piece or by halves of its outputs.

    Attributes:
        convolutions: one or two, with the norm's weight and bias folded in.
        norm_last: divide the convolution's output by the deviation instead of its input:
            W (x - mean) / sigma = W' x / sigma, where W' is W minus the mean of each row. The
            normalised tensor is never stored.
    """

    ones: Tensor
    zeros: Tensor

    def __init__(self, norm: LayerNorm2d, conv: nn.Conv2d) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([_folded(conv, before=norm)])
        self.register_buffer("ones", torch.ones_like(norm.weight))
        self.register_buffer("zeros", torch.zeros_like(norm.weight))
        self.norm_last = False

    def centre(self) -> None:
        """Subtract the mean from the weights' rows, and set ``norm_last``."""
        for conv in self.convolutions:
            weight = cast(nn.Conv2d, conv).weight
            weight.data -= weight.data.double().mean(1, keepdim=True).to(weight)
        self.norm_last = True

    def forward(self, x: Tensor) -> list[Tensor]:
        if not self.norm_last:
            normalised = ops.layer_norm_2d(x, self.ones, self.zeros, eps=1e-6)
            return [conv(normalised) for conv in self.convolutions]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = (wide - wide.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        inverse = torch.rsqrt(variance + 1e-6).to(x.dtype)
        convolutions = (cast(nn.Conv2d, conv) for conv in self.convolutions)
        return [
            F.conv2d(x, conv.weight) * inverse + cast(Tensor, conv.bias)[:, None, None]
            for conv in convolutions
        ]


class DeployedNAFBlock(nn.Module):
    """A `NAFBlock` without affine norms and residual scales; other rewrites change it further.

    Attributes:
        scale_in_weights: multiply conv3's weights by the attention's scale, image by image, instead
            of its input; not where the scale differs between pixels (TLC).
    """

    def __init__(self, block: NAFBlock) -> None:
        super().__init__()
        self.conv1 = NormalisedConv(block.norm1, block.conv1)
        self.conv2 = nn.ModuleList([block.conv2])
        self.sca = block.sca
        self.conv3 = _folded(block.conv3, after=block.beta)
        self.conv4 = NormalisedConv(block.norm2, block.conv4)
        self.conv5 = _folded(block.conv5, after=block.gamma)
        self.scale_in_weights = False

    def forward(self, x: Tensor, bounds: Bounds | None) -> Tensor:
        hidden = [conv(half) for conv, half in zip(self.conv2, self.conv1(x), strict=True)]
        if len(hidden) == 1:
            gated, mean = gate(hidden[0], bounds)
        else:
            gated = hidden[0] * hidden[1]
            wide = gated.to(torch.promote_types(gated.dtype, torch.float32))
            mean = wide.mean(dim=(2, 3)) if bounds is None else local_mean(gated, bounds)
        scale = self.sca(mean)
        if self.scale_in_weights and bounds is None:
            weight = self.conv3.weight.flatten(1).T * scale.flatten(2)
            product = gated.permute(0, 2, 3, 1) @ weight[:, None] + cast(Tensor, self.conv3.bias)
            attended = product.permute(0, 3, 1, 2)
        else:
            attended = self.conv3(gated * scale)
        x = x + attended
        halves = self.conv4(x)
        gated = halves[0] * halves[1] if len(halves) == 2 else simple_gate(halves[0])
        return x + self.conv5(gated)


def _fold_affine(network: nn.Module) -> int:
    return replace_modules(
        network, lambda module: DeployedNAFBlock(module) if isinstance(module, NAFBlock) else None
    )


def _each_deployed(change: Callable[[DeployedNAFBlock], None]) -> Callable[[nn.Module], int]:
    """A rewrite that changes every block, folded first."""

    def apply(network: nn.Module) -> int:
        _fold_affine(network)
        blocks = [module for module in network.modules() if isinstance(module, DeployedNAFBlock)]
        for block in blocks:
            change(block)
        return len(blocks)

    return apply


# Up to this many channels TensorRT runs a 1x1 convolution as one, and fuses what follows into its
# kernel; with more it runs a matrix product, into which it only fuses a bias.
_WIDEST_WITH_EPILOGUE = 128


@_each_deployed
def _split_gates(block: DeployedNAFBlock) -> None:
    # Compute the halves that the first gate multiplies by separate convolutions.
    block.conv1.convolutions, block.conv2 = _halves(block.conv1.convolutions), _halves(block.conv2)
    if block.conv5.in_channels <= _WIDEST_WITH_EPILOGUE:
        block.conv4.convolutions = _halves(block.conv4.convolutions)


@_each_deployed
def _norm_last(block: DeployedNAFBlock) -> None:
    block.conv4.centre()
    if block.conv5.in_channels <= _WIDEST_WITH_EPILOGUE:
        block.conv1.centre()


@_each_deployed
def _scale_in_weights(block: DeployedNAFBlock) -> None:
    block.scale_in_weights = True


class Level(nn.Sequential):
    """The blocks of one size, whose attention pools over the picture or over a window."""

    def __init__(self, channels: int, blocks: int, window: int | None) -> None:
        super().__init__(*(NAFBlock(channels) for _ in range(blocks)))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # In a dynamic export sizes are symbols, and the graph must serve them all.
        known = isinstance(height, int) and isinstance(width, int)
        bounds = None
        if self.window is not None and not (known and max(height, width) <= self.window):
            bounds = window_bounds(x, self.window)
        for block in self:
            x = block(x, bounds)
        return x


class NAFNet(RestorationNetwork):
    """NAFNet of any published size. See `NAFNetConfig`."""

    rewrites = (
        Rewrite(
            "fold-affine",
            "W (a x + b) = (W a) x + W b, a (W x + b) = (a W) x + a b: the norms' weights and "
            "biases and the residuals' beta and gamma are part of the convolutions beside them",
            _fold_affine,
            FUSES_EPILOGUES | {"torch", "cuda"},  # OpenVINO folds them itself
        ),
        Rewrite(
            "split-gate",
            "(W x)_1 * (W x)_2 = (W_1 x) * (W_2 x): the product is the second one's epilogue, and "
            "nothing is sliced",
            _split_gates,
            FUSES_EPILOGUES,
        ),
        Rewrite(
            "norm-last",
            "W (x - mean) / sigma = (W - W 1/C) x / sigma: the normalised tensor is never stored",
            _norm_last,
            FUSES_EPILOGUES,
        ),
        Rewrite(
            "scale-in-weights",
            "W (s * y) = (W diag s) y: the attended tensor is never stored",
            _scale_in_weights,
            FUSES_EPILOGUES,
        ),
    )

    def __init__(self, config: NAFNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NAFNetConfig()
        levels = len(config.encoder_blocks)
        channels = [config.width * 2**level for level in range(levels + 1)]

        def blocks(level: int, count: int) -> Level:
            # The authors measure it on the features of a picture 1.5 times as large as a training
            # patch; as each level halves, this is the same.
            window = None if config.local_window is None else config.local_window >> level
            return Level(channels[level], count, window)

        self.intro = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        self.ending = nn.Conv2d(config.width, config.in_channels, 3, padding=1)
        self.encoders = nn.ModuleList(
            blocks(level, count) for level, count in enumerate(config.encoder_blocks)
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(channels[level], channels[level + 1], 2, stride=2) for level in range(levels)
        )
        self.middle_blks = blocks(levels, config.middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[level + 1], channels[level] * 4, 1, bias=False),
                nn.PixelShuffle(2),
            )
            for level in reversed(range(levels))
        )
        decoders = [
            blocks(level, count)
            for level, count in zip(reversed(range(levels)), config.decoder_blocks, strict=True)
        ]
        if config.numbered_decoders:
            for number, decoder in enumerate(decoders):
                self.add_module(f"decoder{number}", decoder)
        else:
            self.decoders = nn.ModuleList(decoders)

    def feature_modules(self) -> list[str]:
        """The decoders, from the smallest size to the full one."""
        name = "decoder{}" if self.config.numbered_decoders else "decoders.{}"
        return [name.format(number) for number in range(len(self.config.decoder_blocks))]

    def forward(self, image: Tensor) -> Tensor:
        # The authors' code pads other sizes with zeros; the runners reflect.
        x = self.intro(image.to(self.intro.weight.dtype))
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        decoders = (self.get_submodule(name) for name in self.feature_modules())
        for decoder, up, skip in zip(decoders, self.ups, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return self.ending(x).to(image.dtype) + image


def _read_config(state_dict: Mapping[str, Tensor]) -> NAFNetConfig:
    """Width and blocks of each level, read from the tensors.

    No tensor shows ``local_window``: it is None in the result.
    """

    def blocks(prefix: str) -> int:
        """Blocks under ``prefix``: the numbers that follow it."""
        return len(
            {
                key[len(prefix) :].split(".", 1)[0]
                for key in state_dict
                if key.startswith(prefix) and key.endswith(".norm1.weight")
            }
        )

    numbered = "decoder0.0.norm1.weight" in state_dict
    levels = sum(f"downs.{level}.weight" in state_dict for level in range(MAX_LEVELS + 1))
    decoder = "decoder{}." if numbered else "decoders.{}."
    width, in_channels = state_dict["intro.weight"].shape[:2]
    return NAFNetConfig(
        in_channels=in_channels,
        width=width,
        encoder_blocks=tuple(blocks(f"encoders.{level}.") for level in range(levels)),
        middle_blocks=blocks("middle_blks."),
        decoder_blocks=tuple(blocks(decoder.format(level)) for level in range(levels)),
        numbered_decoders=numbered,
    )


_DEEP_LEVEL = NAFNetConfig()
_MANY_BLOCKS = NAFNetConfig(
    encoder_blocks=(2, 2, 4, 8), middle_blocks=12, decoder_blocks=(2, 2, 2, 2)
)
_LOCAL = replace(_DEEP_LEVEL, local_window=384)

# Licences are those of the repositories that released the weights: megvii-research/NAFNet,
# MILab-PKU/dcpt.
# The authors' option files test GoPro and REDS on whole pictures with TLC (class NAFNetLocal, its
# exact and not its fast pooling) of a window 1.5 times the training patch of 256, SIDD on its
# 256x256 blocks, and DCPT on whole pictures without TLC (NAFNetBaseline), reflected to multiples
# of 16. Datasets and dB are the papers' or, where newer, the repositories'.
_variant = partial(
    NetworkSpec,
    family="nafnet",
    paper="NAFNet (Chen et al., ECCV 2022)",
    weights_license="MIT",
    training_patch=256,
    fp32_parts=(
        "the picture and the residual's addition",
        "statistics of layer_norm_2d",
        "means that channel attention pools",
    ),
)

FAMILY = NetworkFamily(
    name="nafnet",
    variants=by_name(
        _variant(
            "nafnet-dcpt",
            task="five degradations at once",
            conditions=ALL_IN_ONE,
            config=replace(_DEEP_LEVEL, numbered_decoders=True),
            paper="DCPT (Hu et al., ICLR 2025)",
            weights_license="none stated",
            training_patch=128,
            paper_psnr=("five tasks, mean", 29.84),
        ),
        _variant(
            "nafnet-gopro",
            task="motion deblurring",
            conditions=MOTION_BLUR,
            config=_LOCAL,
            paper_psnr=("GoPro", 33.71),
        ),
        _variant(
            "nafnet-gopro-width32",
            task="motion deblurring",
            conditions=MOTION_BLUR,
            config=replace(_LOCAL, width=32),
            paper_psnr=("GoPro", 32.87),
        ),
        _variant(
            "nafnet-gopro-global",
            task="motion deblurring, without TLC",
            conditions=MOTION_BLUR,
            config=_DEEP_LEVEL,
        ),
        _variant(
            "nafnet-reds",
            task="deblurring and JPEG artefacts",
            conditions=MOTION_BLUR_AND_JPEG,
            config=_LOCAL,
            paper_psnr=("REDS val-300", 29.09),
        ),
        _variant(
            "nafnet-sidd",
            task="real-photo denoising",
            conditions=CAMERA_NOISE,
            config=_MANY_BLOCKS,
            paper_psnr=("SIDD", 40.30),
        ),
        _variant(
            "nafnet-sidd-width32",
            task="real-photo denoising",
            conditions=CAMERA_NOISE,
            config=replace(_MANY_BLOCKS, width=32),
            paper_psnr=("SIDD", 39.97),
        ),
    ),
    build=NAFNet,
    read_config=_read_config,
    marks=("intro.weight", "ending.weight", "downs.0.weight", "ups.0.0.weight"),
    small={
        "width": 8,
        "encoder_blocks": (1, 2),
        "middle_blocks": 1,
        "decoder_blocks": (1, 1),
    },
    unseen=("local_window",),
)
