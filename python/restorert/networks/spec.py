"""What the runners, the command line and the benchmarks must know of a network, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

PaddingMode = Literal["reflect", "edge"]


class CheckpointSource(Protocol):
    """The file that a network's weights were read from."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class NetworkSpec:
    """One published variant of a network.

    Sizes are in pixels. ``tile`` is the crop side the authors test with (overlapping crops are
    averaged), or None where they feed whole pictures: for networks with instance statistics the
    crop changes the result, so it belongs to the variant and not to the user's memory.
    """

    name: str
    family: str
    task: str
    paper: str
    weights_license: str
    config: Any
    in_channels: int = 3
    out_channels: int = 3
    size_multiple: int = 1
    padding_mode: PaddingMode = "reflect"
    training_patch: int | None = None
    tile: int | None = None
    fp32_parts: tuple[str, ...] = ()
    """What stays in float32 at every precision, in words; the modules themselves enforce it."""


class RestorationNetwork(nn.Module):
    """A module that maps [N, C, H, W] floats in [0, 1] to the restored pictures, not clamped.

    Attributes:
        spec: which variant it is, and what its users must know of it.
        checkpoint: where its weights come from; None for seeded random weights.
    """

    spec: NetworkSpec
    checkpoint: CheckpointSource | None = None


@dataclass(frozen=True)
class NetworkFamily:
    """A network architecture: how to build it and how to recognise its checkpoints."""

    name: str
    variants: Mapping[str, NetworkSpec]
    build: Callable[[Any], RestorationNetwork]
    """Config -> module with torch's default initialisation."""
    config_from_state_dict: Callable[[Mapping[str, Tensor]], Any | None]
    """Canonical state dict -> config, or None where the tensors are not of this family."""
    aliases: Mapping[str, str] = field(default_factory=dict)
