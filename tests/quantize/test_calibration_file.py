"""The calibration cache: round trip, and files that are not one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restorert.errors import CalibrationError
from restorert.quantize import CalibrationCache, read_calibration

CACHE = CalibrationCache(
    network="hinet",
    weights_sha256="ab" * 32,
    method="mse",
    patches=6,
    pictures={"a.png": "cd" * 32},
    scales={"conv2d": 0.0123, "add_35": 6e-5},
    conditions=["sigma 25", "jpeg 40"],
    keep={"last": "asked for"},
    corrections={"conv_01": np.array([0.25, -1e-7, 0.125], np.float32)},
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    CACHE.write(path)
    found = read_calibration(path)
    for field in dataclasses.fields(CACHE):
        if field.name != "corrections":
            assert getattr(found, field.name) == getattr(CACHE, field.name), field.name
    assert list(found.corrections) == ["conv_01"]
    assert np.array_equal(found.corrections["conv_01"], CACHE.corrections["conv_01"])
    again = tmp_path / "b.json"
    found.write(again)
    assert again.read_bytes() == path.read_bytes()
    # a scale a line, a layer's correction a line
    text = path.read_text()
    assert '  "conv2d": 0.0123' in text
    assert '"conv_01": "0.25 -1e-07 0.125"' in text


@pytest.mark.parametrize(("noise", "condition"), [(25.0, "sigma 25"), (0.0, "given")])
def test_files_of_one_condition(tmp_path: Path, noise: float, condition: str) -> None:
    """Format 1."""
    path = tmp_path / "a.json"
    CACHE.write(path)
    raw = json.loads(path.read_text())
    del raw["conditions"], raw["quality"]
    path.write_text(json.dumps(raw | {"format": 1, "noise": noise}))
    found = read_calibration(path)
    assert found.conditions == [condition]
    assert (found.scales, found.keep) == (CACHE.scales, CACHE.keep)


def test_edited(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    CACHE.write(path)
    path.write_text(path.read_text().replace("0.0123", "0.5"))
    assert read_calibration(path).scales["conv2d"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "has format 7, this version reads 2"),
        ({"format": True}, "has format True, this version reads 2"),
        ({"network": 3}, "network must be a string"),
        ({"method": "guess"}, "method must be one of minmax"),
        ({"patches": 1.5}, "patches must be a whole number"),
        ({"patches": -1}, "patches must be a number >= 0"),
        ({"patches": True}, "patches must be a whole number"),
        ({"conditions": "all"}, "conditions must be a list in which each item is a string"),
        ({"quality": {"clean": {"drop_db": "much"}}}, "quality.clean.drop_db must be a number"),
        ({"scales": []}, "scales must be a table"),
        ({"scales": {"x": 0}}, r"scales.x must be a number in \(0, 515.5\]"),
        ({"scales": {"x": 65504}}, "scales.x must be"),  # 127 of it are infinite in float16
        ({"scales": {"x": -1}}, "scales.x must be"),
        ({"scales": {"x": float("nan")}}, "scales.x must be"),
        ({"scales": {"x": 10**400}}, "scales.x must be"),
        ({"scales": {"x\n\x1b[31m": "y"}}, r"scales.x\?\?\[31m must be"),
        ({"scales": {"x": True}}, "scales.x must be"),
        ({"keep": {"x": 3}}, "keep.x must be a string"),
        ({"pictures": {"x": []}}, "pictures.x must be a string"),
        ({"corrections": {"x": "1 nan"}}, "corrections.x must be numbers"),
        ({"corrections": {"x": "1e30 0"}}, "of magnitudes up to 65504"),
        ({"corrections": {"x": "-1e6"}}, "of magnitudes up to 65504"),
        ({"corrections": {"x": "one"}}, "corrections.x must be numbers"),
        ({"surprise": 1}, "unknown key 'surprise'; expected conditions, corrections,"),
    ],
)
def test_hostile_values(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.json"
    CACHE.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match=message) as error:
        read_calibration(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_reasons_are_printable(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    dataclasses.replace(CACHE, keep={"last": "\x1b[31mred\n"}).write(path)
    assert read_calibration(path).keep == {"last": "?[31mred?"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b'"x"', b"{}", b'{"format": 1', b"1e999"],
)
def test_hostile_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as error:
        read_calibration(path)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"cannot read calibration cache .*No such file"):
        read_calibration(tmp_path / "none.json")
    with pytest.raises(CalibrationError, match=r"cannot read calibration cache .*directory"):
        read_calibration(tmp_path)
    with pytest.raises(CalibrationError, match="cannot write"):
        CACHE.write(tmp_path / "none/a.json")
