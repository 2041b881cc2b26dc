"""restorert doctor."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

from restorert.cli.words import CURES
from restorert.errors import RestorertError
from restorert.version import __version__


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser(
        "doctor", help="report what works on this machine and what is missing"
    )
    doctor.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print one line per part of the installation."""
    import torch

    from restorert.backends import BACKENDS, Backend
    from restorert.backends.tensorrt.module import NO_PLUGINS
    from restorert.engine import EngineCache, device
    from restorert.engine.device import short_version
    from restorert.ops.native_call import native
    from restorert.restore.video.frames import load_av

    def kernels() -> str:
        return ", ".join(f"{k} {v}" for k, v in native().build_info().items())

    def cache() -> str:
        found = EngineCache()
        files, size = found.size()
        return f"{found.folder}: {files} files, {size / 1e6:.0f} MB"

    def works(backend: Backend) -> str:
        if backend.takes == "network":
            backend.check_runnable()
            return ": runs"
        backend.check_buildable()
        version = short_version(backend.version())
        try:
            backend.check_runnable()
        except RestorertError as error:
            return f" {version}: builds, no: {error.worded(CURES)}"
        return f" {version}: builds, runs"

    gpu = device.cuda()
    print(f"restorert {__version__}, torch {torch.__version__}")
    print(f"CPU   {device.cpu()}")
    print(f"GPU   {gpu or 'none that torch sees'}")
    print(f"kernels   {_told(kernels)}")
    print(f"plugins   {device.plugin_library() or NO_PLUGINS}")
    for backend in BACKENDS:
        print(f"runner {backend.name}{_told(functools.partial(works, backend), ': no: ')}")
    print(f"video   {_told(lambda: f'PyAV {load_av().__version__}', 'no: ')}")
    print(f"cache   {_told(cache)}")
    return 0


def _told(what: Callable[[], str], otherwise: str = "") -> str:
    try:
        return what()
    except RestorertError as error:
        return otherwise + error.worded(CURES)
