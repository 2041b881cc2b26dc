"""The modules ``tensorrt`` and ``tensorrt_rtx``: loading, messages and the plugin registry."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from restorert.engine import device
from restorert.errors import RunnerUnavailableError, reason_of

NO_PLUGINS = (
    "this build of restorert has no TensorRT plugins; install nvcc and TensorRT's headers "
    "(TENSORRT_ROOT), then reinstall: pip install . -C cmake.define.TENSORRT=ON"
)


@dataclass(frozen=True)
class Flavour:
    """The differences between TensorRT and TensorRT-RTX.

    Attributes:
        name: of the module.
        package: its name on PyPI.
        oldest: the oldest usable version.
        plugins: whether networks can have plugin layers (TensorRT-RTX's parser aborts on them).
        builds_without_gpu: whether it builds for GPUs that this machine does not have.
        stands_in_for: the flavours that it may replace.
    """

    name: str
    package: str
    oldest: tuple[int, ...]
    plugins: bool
    builds_without_gpu: bool
    stands_in_for: tuple[str, ...] = ()


# 10.8: strongly typed networks with every cast and Q/DQ form used here.
TENSORRT = Flavour("tensorrt", "tensorrt", (10, 8), plugins=True, builds_without_gpu=False)
TENSORRT_RTX = Flavour(
    "tensorrt_rtx", "tensorrt-rtx-cu13", (1,), False, True, stands_in_for=("tensorrt",)
)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, TENSORRT_RTX)}


@functools.cache
def load_module(name: str) -> ModuleType:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Raises:
        RunnerUnavailableError: not installed, not loadable or too old; the message says which.
    """
    flavour = FLAVOURS[name]
    try:
        module = importlib.import_module(name)
        version = module.__version__
        module.Builder  # noqa: B018  # PyPI's stub package can be imported, but is empty
    except Exception as error:  # vendor modules raise whatever their loader raises
        absent = isinstance(error, ModuleNotFoundError)
        reason = "not installed" if absent else reason_of(error)
        raise RunnerUnavailableError(
            f"{name} is not usable ({reason}); install it with: pip install {flavour.package}"
        ) from None
    if version_tuple(version) < flavour.oldest:
        needed = ".".join(map(str, flavour.oldest))
        raise RunnerUnavailableError(f"{name} {version} is too old; {needed} or newer is needed")
    return module


def version_tuple(version: str) -> tuple[int, ...]:
    """``"10.15.1.29"`` -> (10, 15, 1, 29)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


class Messages:
    """Collects TensorRT's log: its errors, and the lines that list the kernels of the plan.

    Attributes:
        errors: the text of every error.
        lines: messages that list kernels, see `read_plan`; all messages if ``verbose``.
    """

    def __init__(self, trt: ModuleType, *, verbose: bool = False) -> None:
        self.errors: list[str] = []
        self.lines: list[str] = []
        collected = self

        class _Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    collected.errors.append(message)
                if verbose or ", LayerType: " in message:
                    collected.lines.append(message)

        self.logger = _Logger()

    def last_error(self, fallback: str = "no reason given") -> str:
        """The last error on one line, or ``fallback``."""
        return " ".join(self.errors[-1].split()) if self.errors else fallback


def supports_plugins(trt: ModuleType) -> bool:
    """Whether networks can have plugin layers with this module on this machine."""
    return FLAVOURS[trt.__name__].plugins and device.plugin_library() is not None


def planner() -> str:
    """The module to plan with: TensorRT-RTX, which builds without a GPU, if it is usable.

    Raises:
        RunnerUnavailableError: neither is usable.
    """
    return _first_usable(reversed(FLAVOURS))


def _first_usable(names: Iterable[str]) -> str:
    errors = []
    for name in names:
        try:
            load_module(name)
            return name
        except RunnerUnavailableError as error:
            errors.append(error)
    raise errors[-1]


def load_plugins(trt: ModuleType | None = None) -> list[str]:
    """Register restorert's plugins with TensorRT's registry.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``; None takes the first usable one.

    Returns:
        Names of the registered creators, as ``name:version:namespace``.

    Raises:
        RunnerUnavailableError: no TensorRT, or the plugin library was not built.
    """
    if trt is None:
        trt = load_module(_first_usable(FLAVOURS))
    path = device.plugin_library()
    if path is None:
        raise RunnerUnavailableError(NO_PLUGINS)
    registry = trt.get_plugin_registry()
    if str(path) not in _LOADED.setdefault(trt.__name__, set()):
        registry.load_library(str(path))
        _LOADED[trt.__name__].add(str(path))
    from restorert.ops import SPECS

    names = {spec.name for spec in SPECS}
    return sorted(
        f"{creator.name}:{creator.plugin_version}:{creator.plugin_namespace}"
        for creator in registry.all_creators
        if creator.name in names
    )


_LOADED: dict[str, set[str]] = {}
