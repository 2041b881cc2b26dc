"""Every error a caller of restorert can meet: one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any


class Cure(Enum):
    """What would help, in the words of the Python interface; a front end puts in its own."""

    BUILD = "build it again with build_engine_file"
    CALIBRATE = "quantize_network makes one"
    FP32 = "use fp32, or limit= allows more"
    EXPORT = "export_onnx makes one"
    KEEP_LAYERS = 'keep_fp16="auto" keeps the layers that harm most in fp16, limit= allows more'
    OTHER_RUNNER = 'runner="auto" takes one that works here'
    PICTURES = "restore_image is for pictures"
    TILES = "restore in smaller tiles: tile=N"


class RestorertError(Exception):
    """Base of all errors raised by restorert; the message is one line, fit to show to a user.

    Attributes:
        cure: what would help, where the message does not say it already.
    """

    def __init__(self, message: str, cure: Cure | None = None) -> None:
        super().__init__(message)
        self.cure = cure

    def told(self, words: Mapping[Cure, str]) -> str:
        """The message, its cure in the ``words`` of a front end, else in `Cure`'s own."""
        fact = str(self.args[0])
        return fact if self.cure is None else f"{fact}; {words.get(self.cure, self.cure.value)}"

    def __str__(self) -> str:
        return self.told({})


class UnknownNetworkError(RestorertError, KeyError):
    """A network name that is not in the registry; the message lists the nearest names."""


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
        calibration: the `CalibrationCache` that `quantize_network` refused, for another try.
        saved: the file that it was written to, if any.
    """

    calibration: Any = None
    saved: Path | None = None


def not_finite(network: str) -> RestorertError:
    """The error for a network that returned NaN or infinity."""
    return RestorertError(
        f"{network} returned values that are not finite; build its engine in fp32 or bf16, or, "
        "where it is fp32, get its weights again"
    )


def printable(text: str) -> str:
    """``text`` from a file, fit for one line: control characters become question marks."""
    return "".join(c if c.isprintable() else "?" for c in text)


def reason_of(error: BaseException) -> str:
    """Why a library or the system failed, on one line; of an OSError without number and file."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return printable(text[:160]) or type(error).__name__
