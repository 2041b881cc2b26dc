"""An engine that is built on demand, for frames whose size is not known in advance."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from restorert.engine.profile import ShapeProfile
from restorert.networks import RestorationNetwork
from restorert.pictures.grid import Tile, tile_side
from restorert.progress import Progress
from restorert.runtime.build import build_engine
from restorert.runtime.engine import Engine, EngineReport
from restorert.spec import padded_size

_LOG = logging.getLogger("restorert")

Building = Callable[[], contextlib.AbstractContextManager["Progress | None"]]


class EngineOnDemand:
    """An engine that is built for the first picture, and again for a picture that does not fit.

    If pictures are tiled it is optimised for the tile. The largest shape grows in steps, so that a
    folder of many sizes needs few engines. Each new engine is logged at level INFO.

    Args:
        network: from `create_network` or `load_network`.
        precision, runner, deploy, verify: see `build_engine`.
        tile: see `restore_picture`.
        one_size: all frames have the same size; build for exactly that size.
        building: makes a context manager for each build, which yields the progress callback.

    Attributes:
        spec: the network's `NetworkSpec`.
        engine: the current one; None before the first picture.
    """

    STEP = 512
    """Pixels by which a side of the largest shape grows."""

    def __init__(
        self,
        network: RestorationNetwork,
        *,
        precision: str = "fp32",
        runner: str = "auto",
        tile: Tile = "auto",
        one_size: bool = False,
        deploy: bool = True,
        verify: int = 0,
        building: Building = contextlib.nullcontext,
    ) -> None:
        self.spec = network.spec
        self.tile = tile_side(tile, self.spec)
        self.one_size = one_size
        self.engine: Engine | None = None
        self._build_engine = functools.partial(
            build_engine,
            network,
            precision=precision,
            runner=runner,
            deploy=deploy,
            verify=verify,
        )
        self._building = building
        self._earlier: list[EngineReport] = []

    def report(self) -> EngineReport | None:
        """What its engines have done so far; None before the first picture."""
        if self.engine is None:
            return None
        reports = [*self._earlier, self.engine.report()]
        return EngineReport(
            frames=sum(report.frames for report in reports),
            repeated=sum(report.repeated for report in reports),
            verified=sum(report.verified for report in reports),
            lowest_psnr=min(report.lowest_psnr for report in reports),
            distrusted=any(report.distrusted for report in reports),
            precision=reports[-1].precision,
        )

    def __call__(self, frames: Any) -> Any:
        """Restore frames, numpy arrays as in `Engine.__call__`."""
        size = frames.shape[1:3] if frames.dtype == "uint8" else frames.shape[2:4]
        if self.engine is None or not self._fits(self.engine.runner.profile, size):
            if self.engine is not None:
                self._earlier.append(self.engine.report())
                if self._earlier[-1].distrusted:
                    self._build_engine = functools.partial(
                        self._build_engine, precision=self._earlier[-1].precision
                    )
            self.engine = self._build(size)
            _LOG.info("%s", self.engine.describe())
        return self.engine(frames)

    @staticmethod
    def _fits(profile: ShapeProfile | None, size: tuple[int, int]) -> bool:
        return profile is None or (size[0] <= profile.max[2] and size[1] <= profile.max[3])

    def _build(self, size: tuple[int, int]) -> Engine:
        best = (self.tile, self.tile) if self.tile else (720, 1280)
        before = self.engine.runner.profile if self.engine else None
        least = before.max[2:] if before else best
        largest = [max(pair) for pair in zip(size, least, strict=True)]
        if not self.tile:
            largest = [padded_size(side, self.STEP) for side in largest]

        def shape(sides: Sequence[int]) -> tuple[int, int, int, int]:
            return self.spec.shape_for(sides[0], sides[1])

        profile = ShapeProfile(shape((1, 1)), shape(best), shape(largest))
        if self.one_size:
            profile = ShapeProfile.fixed(shape(size))
        with self._building() as progress:
            return self._build_engine(profile=profile, progress=progress)
