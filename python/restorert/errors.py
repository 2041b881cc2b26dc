"""Every error that restorert raises: one line that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any


class Cure(Enum):
    """The remedy for an error, worded for Python users; a front end can use its own words."""

    BUILD = "build it again with build_engine_file"
    CALIBRATE = "quantize_network makes one"
    FIELDS = 'fields="deinterlace" mends it; fields="progressive" is for frames without combing'
    FP32 = "use fp32, or limit= allows more"
    EXPORT = "export_onnx makes one"
    KEEP_LAYERS = 'keep_fp16="auto" keeps the most sensitive layers in fp16, limit= allows more'
    OTHER_RUNNER = 'runner="auto" picks one that works here'
    PICTURES = "restore_image is for pictures"
    TILES = "restore in smaller tiles: tile=N"


class RestorertError(Exception):
    """Base of all errors raised by restorert; the message is one line that a user can read.

    Attributes:
        cure: the remedy, unless the message already names it.
    """

    def __init__(self, message: str, cure: Cure | None = None) -> None:
        super().__init__(message)
        self.cure = cure

    def worded(self, words: Mapping[Cure, str]) -> str:
        """The message followed by its cure, in ``words`` if they have it, else in `Cure`'s own."""
        fact = str(self.args[0])
        return fact if self.cure is None else f"{fact}; {words.get(self.cure, self.cure.value)}"

    def __str__(self) -> str:
        return self.worded({})


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
    """An engine that was built for another version, device or plugin library."""


class DeviceMemoryError(RestorertError, MemoryError):
    """Not enough memory for the requested input size."""


class PictureError(RestorertError):
    """A picture file that cannot be read or written."""


class VideoError(RestorertError):
    """A video that cannot be read, or that the output format cannot hold."""


class RecipeError(RestorertError):
    """A build recipe (engines/*.toml) that is not valid."""


class CalibrationError(RestorertError):
    """A calibration cache that is not valid or belongs to another network."""


class QualityError(RestorertError):
    """A precision that loses more PSNR than its limit allows; the message says how much.

    Attributes:
        calibration: the `CalibrationCache` that `quantize_network` rejected, for another attempt.
        saved: the file that it was written to, if any.
    """

    calibration: Any = None
    saved: Path | None = None


def not_finite(network: str) -> RestorertError:
    """The error for a network that returned NaN or infinity."""
    return RestorertError(
        f"{network} returned values that are not finite; build its engine in fp32 or bf16, or, "
        "if it is fp32 already, download its weights again"
    )


def printable(text: str) -> str:
    """``text`` with control characters replaced by question marks, so that it fits on one line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def reason_of(error: BaseException) -> str:
    """Why a library or the system failed, on one line; an OSError without its number and file."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return printable(text[:160]) or type(error).__name__
