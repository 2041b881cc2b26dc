"""Engines that are built when frames come."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

import restorert as rr
from restorert.engine import ShapeProfile
from restorert.runtime import EngineReport

pytest.importorskip("openvino")


Tile = Literal["auto"] | int | None


def _on_demand(tile: Tile, name: str = "hinet", **arguments: Any) -> rr.EngineOnDemand:
    network = rr.create_network(name, width=8, depth=3)
    return rr.EngineOnDemand(network, tile=tile, **{"runner": "openvino", **arguments})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tile", "best", "largest"),
    [
        ("hinet", "auto", (720, 1280), (1024, 1536)),
        ("hinet-gopro", "auto", (256, 256), (256, 256)),
        ("hinet-gopro", None, (720, 1280), (1024, 1536)),
        ("hinet", 30, (32, 32), (32, 32)),
    ],
)
def test_profile_fits_the_tile(
    name: str, tile: Tile, best: tuple[int, int], largest: tuple[int, int]
) -> None:
    engine = _on_demand(tile, name)
    engine(np.zeros((1, 3, 16, 20), np.float32))
    assert engine.engine is not None
    profile = engine.engine.runner.profile
    assert profile is not None
    assert (profile.min, profile.opt) == ((1, 3, 4, 4), (1, 3, *best))
    assert profile.max == (1, 3, *largest)


def test_profile_grows_and_never_shrinks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="restorert")
    engine = _on_demand(None)
    asked: list[tuple[int, ...]] = []

    class Built:
        def __init__(self, profile: ShapeProfile) -> None:
            self.runner = self
            self.profile = profile
            asked.append(profile.max[2:])

        def describe(self) -> str:
            return "built"

        def report(self) -> EngineReport:
            return EngineReport(2, 0, 1, 50.0, False, "int8")

        def __call__(self, frames: np.ndarray) -> np.ndarray:
            return frames

    monkeypatch.setattr(engine, "_build_engine", lambda profile, **rest: Built(profile))
    for height, width in ((700, 2000), (2000, 700), (700, 2000), (2048, 2048)):
        engine(np.zeros((1, height, width, 3), np.uint8))
    assert asked == [(1024, 2048), (2048, 2048)]
    assert caplog.messages == ["built", "built"]
    report = engine.report()
    assert report is not None
    assert (report.frames, report.verified, report.precision) == (4, 2, "int8")


def test_a_distrusted_precision_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _on_demand(None, precision="fp16", runner="torch")
    assert engine.report() is None
    engine(np.zeros((1, 16, 16, 3), np.uint8))
    assert engine.engine is not None
    report = EngineReport(1, 0, 1, 20.0, True, "fp32")
    monkeypatch.setattr(engine.engine, "report", lambda: report)
    monkeypatch.setattr(engine, "_fits", lambda *_: False)
    engine(np.zeros((1, 32, 32, 3), np.uint8))
    assert engine.engine.runner.precision == "fp32"
    whole = engine.report()
    assert whole is not None
    assert (whole.frames, whole.distrusted, whole.lowest_psnr) == (2, True, 20.0)


def test_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    engine = _on_demand("auto", one_size=True)
    assert engine(np.zeros((1, 30, 40, 3), np.uint8)).shape == (1, 30, 40, 3)
    assert engine.engine is not None
    assert engine.engine.runner.profile == ShapeProfile.fixed((1, 3, 32, 40))
