"""What restoring pictures and videos asks of an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from restorert.errors import Cure, DeviceMemoryError, InputError, RestorertError, not_finite
from restorert.spec import NetworkSpec


class Engine(Protocol):
    """Any callable that restores frames and has the spec of its network.

    It takes [N, H, W, C] uint8 or [N, C, H, W] float32 in [0, 1], pads to the sizes its network
    needs and crops again, and returns the same kind and shape; floats need not be clamped.
    """

    @property
    def spec(self) -> NetworkSpec:
        """The spec of the network the engine runs."""

    def __call__(self, frames: Any, /) -> Any:
        """Restore a batch."""


def run_engine(engine: Engine, frames: NDArray[Any]) -> NDArray[Any]:
    """``engine(frames)``, with its result checked.

    Raises:
        InputError: the engine's network does not take the frames' channels.
        RestorertError: the result has another shape or dtype, or values that are not finite.
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
        raise not_finite(spec.name)
    return restored


@contextlib.contextmanager
def memory_errors_of(source: object) -> Iterator[None]:
    """Turn a MemoryError into a DeviceMemoryError that names ``source`` and the cure."""
    try:
        yield
    except MemoryError as error:
        known = isinstance(error, DeviceMemoryError)
        fact = error.args[0] if known else "not enough memory"
        raise DeviceMemoryError(f"{source}: {fact}", Cure.TILES) from None
