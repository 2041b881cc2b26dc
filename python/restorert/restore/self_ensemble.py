"""Geometric self-ensemble: the mean of a network's results on mirrored and turned pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import InputError
from restorert.pictures.pixels import from_unit_range, to_unit_range
from restorert.restore.protocol import Engine, run_engine
from restorert.spec import NetworkSpec


class SelfEnsemble:
    """An engine that runs another one on mirrored and turned pictures and averages the results.

    Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (EDSR, CVPRW
    2017), section 3.4; papers mark it by a plus sign (EDSR+, SwinIR+). It takes ``count`` times as
    long. It is for networks that were trained on mirrored and turned pictures, as those of this
    package were.

    Args:
        engine: see `restorert.restore.Engine`; with an engine of one fixed size, count 8 works for
            square pictures only, since four of its members swap height and width.
        count: 1, 2 (mirrored left to right), 4 (and top to bottom), or 8 (and transposed).

    Raises:
        InputError: another count.
    """

    def __init__(self, engine: Engine, count: int = 8) -> None:
        if count not in (1, 2, 4, 8):
            raise InputError(f"a self-ensemble has 1, 2, 4 or 8 members, not {count}")
        self.engine = engine
        self.count = count

    @property
    def spec(self) -> NetworkSpec:
        """The spec of the network the engine runs."""
        return self.engine.spec

    def __call__(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Restore a batch, see `restorert.restore.Engine`: numpy arrays, averaged as floats."""
        planes = to_unit_range(frames) if frames.dtype == np.uint8 else frames
        total = np.zeros(planes.shape, np.float32)
        for member in range(self.count):
            axes = tuple(axis for bit, axis in ((1, -1), (2, -2)) if member & bit)
            turned = np.flip(planes, axes)
            if member & 4:
                turned = turned.swapaxes(-1, -2)
            restored = run_engine(self.engine, np.ascontiguousarray(turned))
            if member & 4:
                restored = restored.swapaxes(-1, -2)
            total += np.flip(restored, axes)
        total /= self.count
        if frames.dtype == np.uint8:
            return from_unit_range(total, np.uint8, self.spec.rounding)
        return total.astype(frames.dtype)
