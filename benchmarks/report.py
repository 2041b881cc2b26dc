"""What benchmarks do alike: how they begin and end, and the machine and commit they record."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from restorert import __version__
from restorert.command_line import Parser, guarded
from restorert.engine import device
from restorert.errors import InputError
from restorert.files import check_replaceable, replace_atomically


def parser(description: str | None) -> Parser:
    """For a benchmark's arguments; ``description`` is its docstring, shown as it is."""
    return Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(parser: Parser, run: Callable[[argparse.Namespace], int]) -> int:
    """Parse, run, return the exit status; no traceback reaches the user.

    Where there is a ``--json``, its file is checked before anything is measured.
    """

    def work() -> int:
        options = parser.parse_args()
        if getattr(options, "json", None) is not None:
            _check_output(options.json)
        return run(options)

    return guarded(Path(parser.prog).stem, work)


def _check_output(path: Path) -> None:
    # Folders that are missing are made with the results, not for measurements that fail.
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        check_replaceable(path if path.parent.exists() else folder / f"{path.name}~")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def facts() -> dict[str, Any]:
    """The machine and the software a measurement belongs to."""
    gpu = device.cuda()
    return {
        "restorert": __version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "gpu": dataclasses.asdict(gpu) if gpu else None,
        "cpu": dataclasses.asdict(device.cpu()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "python": platform.python_version(),
    }


def _commit() -> str:
    root = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("RESTORERT_COMMIT", "unknown")
    return commit.stdout.strip()


def print_header(console: Console) -> None:
    """One line for the machine, one for the software."""
    known = facts()
    processor = device.cuda() or device.cpu()
    console.print(
        f"{processor}, {known['cores']} cores, {known['threads']} torch threads; "
        f"restorert {known['restorert']} at {known['commit']}, torch {known['torch']}",
        highlight=False,
        soft_wrap=True,
    )


def write_json(path: Path, benchmark: str, settings: dict[str, Any], rows: list[Any]) -> None:
    """Write a result file, atomically."""
    record = {"benchmark": benchmark, "machine": facts(), "settings": settings, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
