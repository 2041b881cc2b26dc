"""The facts about a network that engines, the command line and the benchmarks need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from restorert.errors import InputError

PaddingMode = Literal["reflect", "edge"]
Rounding = Literal["nearest", "truncate"]


MOTION_BLUR = ("given", "motion 9", "motion 19")
MOTION_BLUR_AND_JPEG = ("given", "motion 9 + jpeg 25", "motion 19 + jpeg 25")
RAIN = ("given", "rain")
CAMERA_NOISE = ("given", "sigma 5", "sigma 15", "sigma 30")
ALL_IN_ONE = ("given", "rain", "sigma 15", "sigma 25", "sigma 50", "haze", "motion 13", "low light")


def padded_size(size: int, multiple: int, smallest: int = 1) -> int:
    """The smallest multiple of ``multiple`` that is >= ``size`` and >= ``smallest``."""
    return -(-max(size, smallest) // multiple) * multiple


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a network: the base class of each family's config.

    Attributes:
        in_channels: channels of the input and, unless a family overrides it, of the output.
    """

    in_channels: int = 3

    @property
    def out_channels(self) -> int:
        """Channels of the output; by default those of the input."""
        return self.in_channels

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 1

    @property
    def _family(self) -> str:
        """The network's name in messages."""
        return type(self).__name__.removesuffix("Config")


@dataclass(frozen=True)
class NetworkSpec:
    """One published variant of a network.

    Sizes are in pixels. ``tile`` is the crop side the authors test with (overlapping crops are
    averaged), or None if they feed whole pictures: in networks with instance statistics the crop
    size changes the result, so the variant records it.
    """

    name: str
    family: str
    task: str
    paper: str
    weights_license: str
    config: Any
    """The family's `NetworkConfig`."""
    padding_mode: PaddingMode = "reflect"
    training_patch: int | None = None
    tile: int | None = None
    rounding: Rounding = "nearest"
    """How the authors convert the result to integers."""
    fp32_parts: tuple[str, ...] = ()
    """Parts that stay in float32 at every precision, in words; the modules enforce it."""
    paper_psnr: tuple[str, float] | None = None
    """Dataset, and the PSNR in dB that the authors report on it for this variant."""
    conditions: tuple[str, ...] = ("given",)
    """What its inputs may be, for INT8 calibration and its judgement: names that
    `restorert.pictures.degradations.degradation` takes, applied to clean pictures, and "given" for
    pictures as they are. Synthetic where the authors trained on recordings."""
    file_hint: str = ""
    """Part of the published checkpoint's file name, if it does not follow from ``name``."""

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return int(self.config.in_channels)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return int(self.config.out_channels)

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return int(self.config.size_multiple)

    def shape_for(self, height: int, width: int, batch: int = 1) -> tuple[int, int, int, int]:
        """The smallest valid [N, C, H, W] input that holds a picture of this size."""
        multiple = self.size_multiple
        rows, columns = (padded_size(size, multiple) for size in (height, width))
        return batch, self.in_channels, rows, columns


def by_name(*specs: NetworkSpec) -> dict[str, NetworkSpec]:
    """The variants of a family, in the order of the registry."""
    return {spec.name: spec for spec in specs}


def check_shape(spec: NetworkSpec, shape: tuple[int, ...]) -> None:
    """Raise InputError unless ``shape`` is a valid [N, C, H, W] input of the network."""
    multiple = spec.size_multiple
    if len(shape) != 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"shape {shape} is not [N, C, H, W] with positive sizes")
    if shape[1] != spec.in_channels:
        raise InputError(f"{spec.name} takes {spec.in_channels} channels, not {shape[1]}")
    if shape[2] % multiple or shape[3] % multiple:
        near = spec.shape_for(shape[2], shape[3])[2:]
        raise InputError(
            f"{spec.name} needs height and width in multiples of {multiple}; "
            f"the next size after {shape[2]}x{shape[3]} is {near[0]}x{near[1]}"
        )
