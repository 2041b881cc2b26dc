"""What a calibration found, as a readable JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import CalibrationError, printable
from restorert.files import replace_atomically
from restorert.networks import RestorationNetwork
from restorert.quantize.calibration import METHODS
from restorert.weights import shipped_calibrations, weights_hash

FORMAT = 1
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CalibrationCache:
    """Scales of a network's activations and all that they depend on.

    The file may be edited: another scale, or a layer more in ``keep``.

    Attributes:
        network: its name.
        weights_sha256: of the network that was calibrated; another one needs its own calibration.
        method: of the ranges, see `Histogram.range`.
        patches: how many were observed.
        pictures: file name -> hex SHA-256 of the pictures that they are from.
        noise: added to them, standard deviation in levels of 255.
        scales: tensor -> what one step of its int8 form is worth, > 0. 127 steps each way.
        keep: layer -> why it is not in INT8.
        corrections: layer -> what is added to its bias, a number a channel.
    """

    network: str
    weights_sha256: str
    method: str
    patches: int
    pictures: dict[str, str]
    scales: dict[str, float]
    noise: float = 0.0
    keep: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically.

        Raises:
            CalibrationError: the file cannot be written.
        """
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # On one line a layer: a difference of two files shows which layers changed.
        values["corrections"] = {
            name: " ".join(f"{float(v):.6g}" for v in channels)
            for name, channels in self.corrections.items()
        }
        text = json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True) + "\n"
        try:
            with replace_atomically(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CalibrationError(
                f"cannot write {os.fspath(path)}: {error.strerror or error}"
            ) from None


def read_calibration(path: str | os.PathLike[str]) -> CalibrationCache:
    """Read a calibration cache.

    Raises:
        CalibrationError: unreadable, not JSON, of another format, or a value that cannot be; the
            message names the file and the key.
    """
    name = os.fspath(path)
    try:
        if Path(path).stat().st_size > _MOST_BYTES:
            raise CalibrationError(f"{name} is too large to be a calibration cache")
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(
            f"cannot read calibration cache {name}: {error.strerror or error}"
        ) from None
    except (ValueError, RecursionError):
        raise CalibrationError(f"{name} is not valid JSON; calibrate again") from None
    if not isinstance(raw, dict) or type(raw.get("format")) is not int or raw["format"] != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise CalibrationError(
            f"{name} has format {printable(repr(found)[:40])}, this version reads {FORMAT}; "
            "calibrate again"
        )

    def refuse(key: str, expected: str) -> CalibrationError:
        return CalibrationError(f"{name}: {printable(key[:100])} must be {expected}")

    known = {f.name: f for f in dataclasses.fields(CalibrationCache)}
    for key in raw:
        if key != "format" and key not in known:
            raise CalibrationError(
                f"{name}: unknown key {printable(repr(key)[:60])}; expected {', '.join(known)}"
            )
    for key in ("network", "weights_sha256", "method"):
        if not isinstance(raw.get(key), str):
            raise refuse(key, "a string")
    if raw["method"] not in METHODS:
        raise refuse("method", f"one of {', '.join(METHODS)}")
    if not _is_number(raw.get("patches")) or raw["patches"] != int(raw["patches"]):
        raise refuse("patches", "a whole number")
    if not _is_number(raw.get("noise", 0.0)):
        raise refuse("noise", "a number >= 0")
    for key in ("pictures", "scales", "keep", "corrections"):
        if not isinstance(raw.get(key, {}), dict):
            raise refuse(key, "a table")
    for key in ("pictures", "keep", "corrections"):
        for item, value in raw.get(key, {}).items():
            if not isinstance(value, str):
                raise refuse(f"{key}.{item}", "a string")
    scales = raw.get("scales", {})
    for item, value in scales.items():
        if not _is_number(value) or not 0 < value <= LARGEST_SCALE:
            raise refuse(f"scales.{item}", f"a number in (0, {LARGEST_SCALE:g}]")
    corrections = {}
    for item, text in raw.get("corrections", {}).items():
        try:
            channels = np.array([float(v) for v in text.split()])
        except ValueError:
            channels = np.array([np.nan])
        if not (np.abs(channels) <= LARGEST).all():
            expected = f"numbers between spaces, of magnitudes up to {LARGEST:g}"
            raise refuse(f"corrections.{item}", expected)
        corrections[item] = channels.astype(np.float32)
    return CalibrationCache(
        network=printable(raw["network"]),
        weights_sha256=printable(raw["weights_sha256"]),
        method=raw["method"],
        patches=int(raw["patches"]),
        pictures=raw.get("pictures", {}),
        scales={item: float(value) for item, value in scales.items()},
        noise=float(raw.get("noise", 0.0)),
        keep={item: printable(reason) for item, reason in raw.get("keep", {}).items()},
        corrections=corrections,
    )


LARGEST = 65504.0  # float16's
LARGEST_SCALE = 515.5  # the largest of float16 whose 127 steps are within LARGEST


def shipped_calibration(network: RestorationNetwork) -> CalibrationCache | None:
    """The calibration that comes with the package for just these weights, or None."""
    path = shipped_calibrations().get(network.spec.name)
    if path is None:
        return None
    calibration = read_calibration(path)
    return calibration if calibration.weights_sha256 == weights_hash(network) else None


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) < 1e30
        and math.isfinite(value)
        and value >= 0
    )
