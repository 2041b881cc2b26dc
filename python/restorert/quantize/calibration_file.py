"""What a calibration found, as a readable JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from restorert.errors import CalibrationError, Cure, InputError, printable
from restorert.files import writing
from restorert.networks import RestorationNetwork
from restorert.quantize.histogram import METHODS
from restorert.quantize.qdq import LARGEST
from restorert.record import check_value, read_record
from restorert.weights import load_network, shipped_calibrations, weights_hash

if TYPE_CHECKING:
    from restorert.quantize.measure import Quality

FORMAT = 2
LEARNED = "learned"
"""The method of ranges that come from fine-tuning."""

LARGEST_SCALE = 515.5
"""float16's largest whose 127 steps are within `LARGEST`."""

_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CalibrationCache:
    """Scales of a network's activations, and everything that they depend on.

    Its file may be edited by hand: another scale, or one more layer in ``keep``.

    Attributes:
        network: its name.
        weights_sha256: of the network that was calibrated; another one needs its own calibration.
        method: of the ranges, see `Histogram.range`, or `LEARNED`.
        patches: how many were observed.
        pictures: file name -> hex SHA-256 of each picture that they are from.
        conditions: that they were in, see `Patches`.
        scales: tensor -> what one step of its int8 form is worth, in (0, 515.5].
        keep: layer -> why it is not in INT8.
        corrections: layer -> what is added to its bias, [channels].
        quality: condition -> what INT8 cost there, see `figures`; for readers only.
        tuned_from: hex SHA-256 of the weights that these were fine-tuned from for INT8, or "".
    """

    network: str
    weights_sha256: str
    method: str
    patches: int
    pictures: dict[str, str]
    scales: dict[str, float]
    conditions: list[str] = field(default_factory=list)
    keep: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    tuned_from: str = ""

    def to_json(self) -> str:
        """The text of the file: a scale a line and a layer's corrections a line."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["corrections"] = {
            name: " ".join(f"{float(v):.6g}" for v in channels)
            for name, channels in self.corrections.items()
        }
        return json.dumps({"format": FORMAT, **values}, indent=1, sort_keys=True) + "\n"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically.

        Raises:
            CalibrationError: the file cannot be written.
        """
        with writing(path, CalibrationError) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def figures(qualities: Mapping[str, Quality]) -> dict[str, dict[str, float]]:
    """What a calibration file tells of each condition: dB, and levels of 255."""
    return {
        condition: {
            "drop_db": round(quality.drop, 4),
            "worst_drop_db": round(quality.worst_drop, 4),
            "fp32_db": round(quality.drop_at, 2),
            "shift_levels": round(quality.shift, 4),
            "worst_shift_levels": round(quality.worst_shift, 4),
        }
        for condition, quality in qualities.items()
    }


def read_calibration(path: str | os.PathLike[str]) -> CalibrationCache:
    """Read a calibration cache.

    Raises:
        CalibrationError: the file cannot be read, is not JSON or of another format, or holds a
            value out of range; the message names the file and the key.
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
        raise CalibrationError(f"{name} is not valid JSON", Cure.CALIBRATE) from None
    found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
    if type(found) is int and found == 1:  # of one condition
        noise = raw.pop("noise", 0.0)
        found = FORMAT
        if isinstance(noise, (int, float)):
            raw["conditions"] = [f"sigma {noise:g}" if noise else "given"]
    if type(found) is not int or found != FORMAT:
        raise CalibrationError(
            f"{name} has format {printable(repr(found)[:40])}, this version reads {FORMAT}",
            Cure.CALIBRATE,
        )
    try:
        values = read_record(
            CalibrationCache, raw, converters={"corrections": _corrections}, ignore=("format",)
        )
        if values["method"] not in (*METHODS, LEARNED):
            raise InputError(f"method must be one of {', '.join((*METHODS, LEARNED))}")
        if values["patches"] < 0:
            raise InputError("patches must be a number >= 0")
        for item, scale in values["scales"].items():
            if not 0 < scale <= LARGEST_SCALE:
                key = printable(item[:100])
                raise InputError(f"scales.{key} must be a number in (0, {LARGEST_SCALE:g}]")
    except InputError as error:
        raise CalibrationError(f"{name}: {error}") from None
    # Errors quote these texts.
    for key in ("network", "weights_sha256", "tuned_from"):
        if key not in values:
            continue
        values[key] = printable(values[key])
    values["conditions"] = [printable(name) for name in values.get("conditions", [])]
    values["keep"] = {item: printable(why) for item, why in values.get("keep", {}).items()}
    return CalibrationCache(**values)


def _corrections(raw: object) -> dict[str, NDArray[np.float32]]:
    check_value(raw, dict[str, str], "corrections")
    assert isinstance(raw, dict)
    found = {}
    for item, text in raw.items():
        try:
            channels = np.array([float(v) for v in text.split()])
        except ValueError:
            channels = np.array([np.nan])
        if not (np.abs(channels) <= LARGEST).all():
            raise InputError(
                f"corrections.{printable(item[:100])} must be numbers between spaces, "
                f"of magnitudes up to {LARGEST:g}"
            )
        found[item] = channels.astype(np.float32)
    return found


def shipped_int8(
    network: RestorationNetwork,
) -> tuple[RestorationNetwork, CalibrationCache] | None:
    """What INT8 is made of for just these weights, where it comes with the package.

    Returns:
        The network itself, or one that was fine-tuned from it for INT8, and its calibration; None
        for other weights than the package's.
    """
    path = shipped_calibrations().get(network.spec.name)
    if path is None:
        return None
    calibration, own = read_calibration(path), weights_hash(network)
    if calibration.weights_sha256 == own:
        return network, calibration
    if calibration.tuned_from != own:
        return None
    return load_network(path.with_suffix(".safetensors"), name=network.spec.name), calibration
