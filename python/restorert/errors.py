"""Every error a caller of restorert can meet: one line that says what is wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restorert.quantize import CalibrationCache


class RestorertError(Exception):
    """Base of all errors raised by restorert; the message is one line, fit to show to a user."""


class UnknownNetworkError(RestorertError, KeyError):
    """A network name that is not in the registry; the message lists the nearest names."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class CheckpointError(RestorertError):
    """A checkpoint that cannot be read safely or belongs to no known network."""


class InputError(RestorertError, ValueError):
    """An argument (array, shape, flag) that an engine, an export or an op cannot take."""


class RunnerUnavailableError(RestorertError):
    """A runner whose library or device is missing on this machine."""


class BuildError(RestorertError):
    """An engine that could not be built."""


class EngineMismatchError(RestorertError):
    """A built engine that belongs to another version, device or plugin library."""


class DeviceMemoryError(RestorertError, MemoryError):
    """Not enough memory for the asked input size."""


class PictureError(RestorertError):
    """A picture file that cannot be read or written."""


class VideoError(RestorertError):
    """A video file that cannot be read, or that the file to write cannot hold."""


class RecipeError(RestorertError):
    """A build recipe (engines/*.toml) that is not valid."""


class CalibrationError(RestorertError):
    """A calibration cache that is not valid, or is of another network."""


class QualityError(RestorertError):
    """A precision that harms the pictures more than its limit allows; the message says how much.

    Attributes:
        calibration: what `quantize_network` found before it refused, for another try.
    """

    calibration: CalibrationCache | None = None


def printable(text: str) -> str:
    """``text`` from a file, fit for one line: control characters become question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)
