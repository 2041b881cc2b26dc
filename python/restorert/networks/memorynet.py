"""MemoryNet: Memory augment is All You Need for image restoration.

Zhang, Gu, Zhu. arXiv 2309.01377. An MPRNet whose stages are given, instead of the picture, what a
memory of learned prototypes returns for each pixel (section III-A): stage one the part, stage two
the instance and stage three the semantic prototypes. Parameter names are the authors' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restorert import ops
from restorert.errors import InputError
from restorert.networks.module import NetworkFamily
from restorert.networks.mprnet import MPRNet, MPRNetConfig, sizes_from_state_dict, tensors_for
from restorert.ops.memory_read import MAX_CHANNELS, MAX_PROTOTYPES
from restorert.spec import NetworkSpec, by_name


@dataclass(frozen=True)
class MemoryNetConfig(MPRNetConfig):
    """Sizes of a MemoryNet: those of its MPRNet and of its memory.

    Attributes:
        classes: semantic prototypes.
        prototypes: instance prototypes of each class.
        parts: part prototypes of each instance.
        shrink: weights of prototypes up to this are set to 0.
    """

    width: int = 40
    unet_growth: int = 20
    orsnet_growth: int = 16
    classes: int = 10
    prototypes: int = 2
    parts: int = 5
    shrink: float = 0.0025

    def __post_init__(self) -> None:
        super().__post_init__()
        memory = (self.classes, self.prototypes, self.parts)
        if (
            any(not isinstance(count, int) or count < 1 for count in memory)
            or self.classes * self.prototypes * self.parts > MAX_PROTOTYPES
            or self.in_channels > MAX_CHANNELS
            or not 0 <= self.shrink < 1
        ):
            raise InputError(
                f"MemoryNet needs classes, prototypes and parts >= 1 with a product up to "
                f"{MAX_PROTOTYPES}, in_channels up to {MAX_CHANNELS} and 0 <= shrink < 1, not "
                f"classes={self.classes}, prototypes={self.prototypes}, parts={self.parts}, "
                f"in_channels={self.in_channels}, shrink={self.shrink}"
            )


class Memory(nn.Module):
    """Three reads of a hierarchy of prototypes.

    Its few weights stay float32 when the network is cast to a half precision: rounded prototypes
    would move pixels across the threshold of the hard shrink.
    """

    def __init__(self, config: MemoryNetConfig) -> None:
        super().__init__()
        self.config = config
        rows = config.classes * config.prototypes * config.parts
        self.weight = nn.Parameter(torch.empty(rows, config.in_channels))
        bound = config.in_channels**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.reweight_layer_part = nn.Conv1d(config.parts, config.parts, 1)
        self.reweight_layer_ins = nn.Conv1d(config.prototypes, config.prototypes, 1)

    def derived(self) -> tuple[Tensor, Tensor]:
        """Instance and semantic prototypes: a ten-thousandth of the network's time.

        The exporter folds them into constants.
        """
        part, instance = self.reweight_layer_part, self.reweight_layer_ins
        assert part.bias is not None
        assert instance.bias is not None
        return ops.derive_prototypes(
            self.weight,
            part.weight,
            part.bias,
            instance.weight,
            instance.bias,
            classes=self.config.classes,
            prototypes=self.config.prototypes,
            parts=self.config.parts,
        )

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        def keep_wide(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            halved = moved.is_floating_point() and moved.element_size() < 4
            return tensor.to(moved.device) if halved else moved

        return super()._apply(keep_wide, recurse)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the semantic, instance and part memory return for [N, C, H, W], each like it."""
        wide = torch.promote_types(picture.dtype, torch.float32)
        instance, semantic = self.derived()
        return ops.memory_read(
            picture,
            self.weight.to(wide),
            instance.to(wide),
            semantic.to(wide),
            self.config.shrink,
        )


class MemoryNet(MPRNet):
    """MemoryNet of any size. See `MemoryNetConfig`."""

    config: MemoryNetConfig

    def __init__(self, config: MemoryNetConfig | None = None) -> None:
        config = config or MemoryNetConfig()
        super().__init__(config)
        self.memory = nn.ModuleDict({"memory": Memory(config)})

    def stages(self, image: Tensor) -> list[Tensor]:
        semantic, instance, part = self.memory["memory"](image)
        return self._restore((part, instance, semantic))


def _read_config(state_dict: Mapping[str, Tensor]) -> MemoryNetConfig | None:
    """Sizes, read from the tensors; None if it is not a MemoryNet."""
    names = ("weight", "reweight_layer_part.bias", "reweight_layer_ins.bias")
    found = [state_dict.get(f"memory.memory.{name}") for name in names]
    sizes = sizes_from_state_dict(state_dict)
    if sizes is None or any(tensor is None or tensor.ndim < 1 for tensor in found):
        return None
    rows, parts, prototypes = (len(tensor) for tensor in found if tensor is not None)
    if parts < 1 or prototypes < 1:
        return None
    classes = rows // (parts * prototypes)
    return MemoryNetConfig(**sizes, classes=classes, prototypes=prototypes, parts=parts)


# The repository ships one architecture, for every task of the paper, and weights that remove
# clouds. Its LICENSE is MIT; most of its code is MPRNet's, whose licence is not.
_SPEC = NetworkSpec(
    name="memorynet",
    family="memorynet",
    task="shadow, raindrop and cloud removal",
    paper="MemoryNet (Zhang et al., arXiv 2309.01377)",
    weights_license="MIT as its authors state; built on MPRNet, which is for non-commercial use",
    config=MemoryNetConfig(),
    training_patch=256,
    paper_psnr=("ISTD", 33.44),
    fp32_parts=(
        "the picture, its memory and the residual's addition",
        "means and gates of channel_attention",
    ),
)

FAMILY = NetworkFamily(
    name="memorynet",
    variants=by_name(_SPEC),
    build=MemoryNet,
    read_config=_read_config,
    small={"width": 8, "unet_growth": 4, "orsnet_growth": 4, "cabs": 1},
    tensors_for=tensors_for,
)
