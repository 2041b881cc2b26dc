"""The engine as pictures see it, and the scaling between integers and [0, 1]."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from restorert.errors import InputError, RestorertError
from restorert.networks.spec import NetworkSpec, Rounding
from restorert.runners.engine import not_finite


class Engine(Protocol):
    """What restores: any callable with the spec of its network.

    It takes [N, H, W, C] uint8 or [N, C, H, W] float32 in [0, 1], pads to the sizes its network
    needs and crops again, and returns the same kind and shape; floats need not be clamped.
    """

    @property
    def spec(self) -> NetworkSpec:
        """The spec of the network the engine runs."""

    def __call__(self, frames: Any, /) -> Any:
        """Restore a batch."""


def run_engine(engine: Engine, frames: NDArray[Any]) -> NDArray[Any]:
    """``engine(frames)``, checked: a shape or dtype that changed, or values that are not finite.

    Raises:
        InputError: the engine's network does not take the frames' channels.
        RestorertError: the engine broke its protocol, or its result overflowed.
    """
    channels = frames.shape[3 if frames.dtype == np.uint8 else 1]
    spec = engine.spec
    if not channels == spec.in_channels == spec.out_channels:
        raise InputError(
            f"{spec.name} maps {spec.in_channels} channels to {spec.out_channels}; pictures need a "
            f"network from {channels} to {channels}"
        )
    restored = np.asarray(engine(frames))
    if restored.shape != frames.shape or restored.dtype != frames.dtype:
        raise RestorertError(
            f"the engine of {spec.name} returned {list(restored.shape)} of {restored.dtype} for "
            f"{list(frames.shape)} of {frames.dtype}"
        )
    if restored.dtype == np.float32 and not np.isfinite(restored).all():
        raise not_finite(spec)
    return restored


def to_unit_range(frames: NDArray[Any]) -> NDArray[np.float32]:
    """[N, H, W, C] integers over their dtype's range, or floats, to [N, C, H, W] in [0, 1]."""
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32)
    if np.issubdtype(frames.dtype, np.integer):
        planes /= np.float32(np.iinfo(frames.dtype).max)
    return planes


def from_unit_range(
    planes: NDArray[Any], dtype: DTypeLike, rounding: Rounding = "nearest"
) -> NDArray[Any]:
    """[N, C, H, W] floats to [N, H, W, C] integers: clamped to [0, 1], then rounded."""
    scaled = np.clip(planes, 0.0, 1.0) * float(np.iinfo(np.dtype(dtype)).max)
    whole = np.rint(scaled) if rounding == "nearest" else scaled
    return np.ascontiguousarray(whole.astype(dtype).transpose(0, 2, 3, 1))
