"""SwinIR: Image Restoration Using Swin Transformer, and DCPT's form of it.

Liang, Cao, Sun, Zhang, Van Gool, Timofte. ICCV Workshops 2021. Self-attention inside windows that
every second block shifts by half a window (section 3.2); groups of such blocks end with a
convolution and a residual (RSTB). Here are the networks that keep the picture's size: denoising,
JPEG artefacts, and the all-in-one network of DCPT (Hu et al., "Universal Image Restoration
Pre-training via Degradation Classification", ICLR 2025), which has neither relative position bias
nor shift mask. Parameter names are the authors' own.

It is one file because a deploy form is read beside the layers that it rewrites.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RestorationNetwork, Rewrite, named
from restorert.spec import ALL_IN_ONE, NetworkConfig, NetworkSpec, by_name

# Added to the logits of two pixels that only the cyclic shift brought together: exp(-100) is 0.
_MASKED = -100.0
# Mean colour of DIV2K, in ten-thousandths: integers keep their precision in a half network.
_RGB_MEAN = (4488, 4371, 4040)
# Buffers in the authors' checkpoints that follow from the sizes.
_DERIVED = frozenset({"relative_position_index", "attn_mask"})


@dataclass(frozen=True)
class SwinIRConfig(NetworkConfig):
    """Sizes of a SwinIR without upsampling.

    Attributes:
        in_channels: channels of the picture, in and out; with 3 the mean colour is subtracted.
        width: channels of every feature; a multiple of ``heads``.
        depths: blocks of each group; blocks at odd places shift their windows by half.
        heads: of every attention.
        window: side of the attention's windows in pixels, 2 to 32.
        mlp_ratio: hidden channels of every MLP in units of ``width``.
        image_range: the picture, minus its mean, is multiplied by this.
        dcpt: DCPT's form: no relative position bias, so pixels of a window have no position; no
            mask, so windows at the border attend to the opposite border; half of the groups are
            named encoder, half decoder.
    """

    width: int = 180
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    heads: int = 6
    window: int = 8
    mlp_ratio: float = 2.0
    image_range: float = 1.0
    dcpt: bool = False

    def __post_init__(self) -> None:
        if self.in_channels < 1 or self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise InputError(
                f"SwinIR needs in_channels >= 1 and a width that is a multiple of heads, not "
                f"in_channels={self.in_channels}, width={self.width}, heads={self.heads}"
            )
        if not self.depths or min(self.depths) < 1 or (self.dcpt and len(self.depths) % 2):
            raise InputError(
                f"SwinIR needs groups of at least one block, DCPT's form an even number of groups, "
                f"not depths={self.depths}"
            )
        hidden = self.width * self.mlp_ratio
        if not (2 <= self.window <= 32 and 0 < self.image_range < math.inf and 1 <= hidden < 1e6):
            raise InputError(
                f"SwinIR needs a window of 2 to 32, a positive image_range and an mlp_ratio that "
                f"leaves hidden channels, not window={self.window}, "
                f"image_range={self.image_range}, mlp_ratio={self.mlp_ratio}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be whole windows."""
        return self.window


Order = Literal["image", "plain", "shifted"]


@dataclass(frozen=True)
class Places:
    """The orders of a batch's pixels, computed once for all blocks.

    There are M windows of N pixels. Between blocks the pixels stay in the order of windows, plain
    or shifted: linear maps, norms and residuals do not depend on it, attention rearranges only
    heads, and every change of order is one gather of whole pixels.

    Attributes:
        moves: for a change of order, the old positions of the pixels in their new order: [M, N] for
            orders of windows, [B, H, W] for the image.
        index: [N * N], rows of a block's bias table; None without bias.
        mask: [M, 1, N, N], added to the logits of shifted windows; None without mask.
    """

    moves: dict[tuple[Order, Order], Tensor]
    index: Tensor | None = None
    mask: Tensor | None = None


def gather(x: Tensor, move: Tensor) -> Tensor:
    """Pixels [..., C] in another order, of the shape of ``move``."""
    return F.embedding(move, x.flatten(0, -2))


def places(
    size: tuple[int, int, int], window: int, index: Tensor | None, features: Tensor
) -> Places:
    """The places of pictures of B, H, W = ``size``.

    Args:
        size: multiples of ``window`` for H and W.
        window: side in pixels; shifted windows start half of it (rounded down) further.
        index: `relative_position_index`, or None for DCPT's form.
        features: gives dtype and device of the mask.
    """
    batch, height, width = size
    rows, columns, pixels = height // window, width // window, window * window
    shift, device = window // 2, features.device

    # Numbers are moved as pixels are: [B, H, W] holds each pixel's position in an order.
    numbers = torch.arange(batch * height * width, dtype=torch.int32, device=device)
    in_image = numbers.reshape(size)
    in_windows = numbers.reshape(batch, rows, columns, window, window).transpose(2, 3)
    in_plain = in_windows.reshape(size)
    in_shifted = torch.roll(in_plain, (shift, shift), (1, 2))
    ahead = torch.roll(in_plain, (-shift, -shift), (1, 2))
    split = in_image.reshape(batch, rows, window, columns, window).transpose(2, 3)
    plain = split.reshape(batch * rows * columns, pixels)
    moves: dict[tuple[Order, Order], Tensor] = {
        ("image", "plain"): plain,
        ("plain", "shifted"): gather(ahead[..., None], plain)[..., 0],
        ("shifted", "plain"): gather(in_shifted[..., None], plain)[..., 0],
        ("plain", "image"): in_plain,
        ("shifted", "image"): in_shifted,
    }
    if index is None:
        return Places(moves)
    # The cyclic shift puts the first rows and columns after the last; windows that hold both must
    # not mix them.
    wrapped_rows = torch.arange(height, device=device) >= height - shift
    wrapped_columns = torch.arange(width, device=device) >= width - shift
    side = wrapped_rows[:, None].int() * 2 + wrapped_columns[None, :].int()
    side = gather(side.expand(size)[..., None], plain)[..., 0]
    apart = side[:, None, :, None] != side[:, None, None, :]
    return Places(moves, index, apart.to(features.dtype) * _MASKED)


def relative_position_index(window: int) -> Tensor:
    """[N * N]: the bias table's row for each pair of pixels of a window, from their offset."""
    row = torch.arange(window).repeat_interleave(window)
    column = torch.arange(window).repeat(window)
    down = row[:, None] - row[None, :] + window - 1
    right = column[:, None] - column[None, :] + window - 1
    return (down * (2 * window - 1) + right).flatten()


class WindowAttention(nn.Module):
    """Multi-head self-attention among the pixels of each window (section 3.2, equation 5)."""

    def __init__(self, width: int, heads: int, window: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        if bias:
            self.relative_position_bias_table = nn.Parameter(
                nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02)
            )
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, index: Tensor | None, mask: Tensor | None) -> Tensor:
        """[M, N, C], each window's pixels, to the same; ``index``, ``mask`` as in `Places`."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scaled = q if self.scale == 1 else q * self.scale
        logits = scaled @ k.transpose(-2, -1)
        if index is not None:
            bias = self.relative_position_bias_table[index].T
            logits = logits + bias.unflatten(1, logits.shape[2:])
        if mask is not None:
            logits = logits + mask
        out = (torch.softmax(logits, dim=-1) @ v).transpose(1, 2)
        return self.proj(out.flatten(2))


# Tensor cores and vector registers hold multiples of this many channels.
_HEAD_MULTIPLE = 8


def _pad_heads(network: nn.Module) -> int:
    blocks = [module for module in network.modules() if isinstance(module, WindowAttention)]
    for block in blocks:
        width, heads = block.proj.out_features, block.heads
        channels = width // heads
        padding = (0, 0, 0, -channels % _HEAD_MULTIPLE)
        weight = block.qkv.weight.detach().unflatten(0, (3, heads, channels))
        bias = block.qkv.bias.detach().unflatten(0, (3, heads, channels))
        scale = torch.tensor([block.scale, 1.0, 1.0], dtype=weight.dtype)[:, None, None]
        weight = F.pad(weight * scale[..., None], padding)
        bias = F.pad(bias * scale, padding[2:])
        back = F.pad(block.proj.weight.detach().unflatten(1, (heads, channels)), padding[2:])
        qkv = nn.Linear(width, bias.numel(), dtype=weight.dtype)
        qkv.weight.data, qkv.bias.data = weight.flatten(0, 2), bias.flatten()
        proj = nn.Linear(bias.numel() // 3, width, dtype=weight.dtype)
        proj.weight.data, proj.bias.data = back.flatten(1), block.proj.bias.detach()
        block.qkv, block.proj, block.scale = qkv, proj, 1.0
    return len(blocks)


class SwinBlock(nn.Module):
    """Window attention and MLP, each after a layer norm and with a residual (equation 6)."""

    def __init__(self, config: SwinIRConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, config.heads, config.window, bias=not config.dcpt)
        self.norm2 = nn.LayerNorm(width)
        hidden = round(width * config.mlp_ratio)
        self.mlp = named(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))

    def forward(self, x: Tensor, index: Tensor | None, mask: Tensor | None) -> Tensor:
        """[M, N, C], each window's pixels, to the same."""
        x = x + cast(Tensor, self.attn(self.norm1(x), index, mask))
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class BlockGroup(nn.Module):
    """The blocks of one group, every second one on shifted windows."""

    def __init__(self, config: SwinIRConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(config) for _ in range(depth))

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """[B, H, W, C] to the same."""
        order: Order = "image"
        for i, block in enumerate(self.blocks):
            before, order = order, "shifted" if i % 2 else "plain"
            x = gather(x, places.moves[before, order])
            x = block(x, places.index, places.mask if order == "shifted" else None)
        return gather(x, places.moves[order, "image"])


class ResidualSwinGroup(nn.Module):
    """RSTB: a group of blocks, a 3x3 convolution and a residual (section 3.2, equation 4)."""

    def __init__(self, config: SwinIRConfig, depth: int) -> None:
        super().__init__()
        self.residual_group = BlockGroup(config, depth)
        self.conv = nn.Conv2d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """[B, H, W, C] to the same."""
        return x + convolve(self.conv, self.residual_group(x, places))


def convolve(convolution: nn.Module, x: Tensor) -> Tensor:
    """A convolution of [B, H, W, C]."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIR(RestorationNetwork):
    """SwinIR of the published sizes without upsampling. See `SwinIRConfig`."""

    rewrites = (
        Rewrite(
            "pad-heads",
            "q . k = [q, 0] . [k, 0] and (s q) . k = (s W_q x) . k: heads of 30 channels become "
            "heads of 32, which need no copy before the attention",
            _pad_heads,
        ),
    )
    features_channels_last = True
    mean: Tensor
    bias_rows: Tensor | None

    def __init__(self, config: SwinIRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SwinIRConfig()
        mean = _RGB_MEAN if config.in_channels == 3 else (0,) * config.in_channels
        index = None if config.dcpt else relative_position_index(config.window)
        # Neither is in the authors' state dicts.
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("bias_rows", index, persistent=False)

        self.conv_first = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        # Patches are of one pixel, and their embedding a layer norm.
        self.patch_embed = named(norm=nn.LayerNorm(config.width))
        # In order of computation, whatever their names.
        self.groups = groups = tuple(ResidualSwinGroup(config, depth) for depth in config.depths)
        if config.dcpt:
            half = len(groups) // 2
            self.encode_layers = nn.ModuleList(groups[:half])
            for i, group in enumerate(groups[half:]):
                self.add_module(f"decode_layers{i}", group)
        else:
            self.layers = nn.ModuleList(groups)
        self.norm = nn.LayerNorm(config.width)
        self.conv_after_body = nn.Conv2d(config.width, config.width, 3, padding=1)
        self.conv_last = nn.Conv2d(config.width, config.in_channels, 3, padding=1)
        self.register_load_state_dict_pre_hook(_forget_derived)

    def feature_modules(self) -> list[str]:
        """The blocks of DCPT's second half of groups, before each group's convolution."""
        if not self.config.dcpt:
            return []
        return [f"decode_layers{i}.residual_group" for i in range(len(self.config.depths) // 2)]

    def forward(self, image: Tensor) -> Tensor:
        config = self.config
        dtype = self.conv_first.weight.dtype
        centred = (image - self.mean.to(image.dtype) / 10000) * config.image_range
        shallow = self.conv_first(centred.to(dtype)).permute(0, 2, 3, 1)
        size = (image.shape[0], image.shape[2], image.shape[3])
        where = places(size, config.window, self.bias_rows, shallow)
        deep = self.patch_embed(shallow)
        for group in self.groups:
            deep = group(deep, where)
        deep = convolve(self.conv_after_body, self.norm(deep)) + shallow
        residual = self.conv_last(deep.permute(0, 3, 1, 2))
        return residual.to(image.dtype) / config.image_range + image


def _forget_derived(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [n for n in state_dict if n.rpartition(".")[2] in _DERIVED]:
        if name.startswith(prefix):
            del state_dict[name]


def _read_config(state_dict: Mapping[str, Tensor]) -> SwinIRConfig | None:
    """Sizes read from the tensors; None if it is not a SwinIR without upsampling.

    Some sizes show in no tensor and are those of every published file: DCPT's form has 6 heads and
    windows of 8 pixels; of the originals, windows of 7 go with an image range of 255.
    """
    dcpt = "encode_layers.0.conv.weight" in state_dict
    first, blocks = (
        ("encode_layers.0", r"(encode_layers\.|decode_layers)(\d{1,4})")
        if dcpt
        else ("layers.0", r"(layers\.)(\d{1,4})")
    )
    block = f"{first}.residual_group.blocks.0"
    table = f"{block}.attn.relative_position_bias_table"
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    needed = {"conv_first.weight": 4, "conv_last.weight": 4, f"{block}.mlp.fc1.weight": 2}
    if not dcpt:
        needed[table] = 2
    if any(len(shapes.get(key, ())) != rank for key, rank in needed.items()):
        return None
    if "conv_after_body.weight" not in shapes or "conv_before_upsample.0.weight" in shapes:
        return None

    depths: dict[tuple[str, int], int] = {}
    for key in shapes:
        found = re.match(blocks + r"\.residual_group\.blocks\.(\d{1,4})\.norm1\.weight$", key)
        if found:
            group = (found[1], int(found[2]))
            depths[group] = depths.get(group, 0) + 1
    # "encode" sorts before "decode" in the network only.
    ordered = sorted(depths, key=lambda group: (group[0] == "decode_layers", group[1]))

    width, in_channels = shapes["conv_first.weight"][:2]
    window = 8
    heads = 6
    if not dcpt:
        entries, heads = shapes[table]
        window = (math.isqrt(entries) + 1) // 2
    return SwinIRConfig(
        in_channels=in_channels,
        width=width,
        depths=tuple(depths[group] for group in ordered),
        heads=heads,
        window=window,
        mlp_ratio=shapes[f"{block}.mlp.fc1.weight"][0] / max(width, 1),
        image_range=255.0 if window == 7 and not dcpt else 1.0,
        dcpt=dcpt,
    )


_variant = partial(
    NetworkSpec,
    family="swinir",
    paper="SwinIR (Liang et al., ICCVW 2021)",
    fp32_parts=(
        "the picture and the residual's addition",
        "statistics of the layer norms",
        "sums of the softmax",
    ),
)


def _variants() -> Iterator[NetworkSpec]:
    # JingyunLiang/SwinIR is under the Apache licence; MILab-PKU/dcpt states none.
    yield _variant(
        "swinir-dcpt",
        task="all-in-one restoration",
        conditions=ALL_IN_ONE,
        config=SwinIRConfig(dcpt=True),
        paper="DCPT (Hu et al., ICLR 2025), SwinIR",
        weights_license="none stated",
        training_patch=128,
        paper_psnr=("five tasks, mean", 28.47),
    )
    colours = (("color", 3), ("gray", 1))
    denoising = partial(_variant, weights_license="Apache-2.0", training_patch=128)
    for colour, channels in colours:
        for noise in (15, 25, 50):
            yield denoising(
                f"swinir-denoise-{colour}-{noise}",
                task=f"denoising, {colour}, noise of deviation {noise}",
                conditions=(f"sigma {noise}",),
                config=SwinIRConfig(in_channels=channels),
                file_hint=f"{colour}DN_DFWB_s128w8_SwinIR-M_noise{noise}",
            )
    deblocking = partial(_variant, weights_license="Apache-2.0", training_patch=126)
    paper_psnr = {10: 28.06, 20: 30.45, 30: 31.82, 40: 32.75}  # on LIVE1
    for colour, channels in colours:
        prefix = "color" if channels == 3 else ""
        for quality, psnr in paper_psnr.items():
            yield deblocking(
                f"swinir-jpeg-{colour}-{quality}",
                task=f"JPEG artefacts, {colour}, quality {quality}",
                conditions=(f"jpeg {quality}",),
                # Seven pixels because JPEG's blocks have 8 (the authors' main_test_swinir.py).
                config=SwinIRConfig(in_channels=channels, window=7, image_range=255.0),
                paper_psnr=("LIVE1", psnr) if channels == 3 else None,
                file_hint=f"{prefix}CAR_DFWB_s126w7_SwinIR-M_jpeg{quality}",
            )


FAMILY = NetworkFamily(
    name="swinir",
    variants=by_name(*_variants()),
    build=SwinIR,
    read_config=_read_config,
    # Grey pictures change the first and the last convolution only.
    small={"in_channels": 3, "width": 12, "depths": (2, 2)},
    derived_tensors=_DERIVED,
)
