"""What every benchmark prints and records: the machine, the versions, the commit."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from restorert import __version__
from restorert.engine import environment
from restorert.files import replace_atomically


def facts() -> dict[str, Any]:
    """The machine and the software a measurement belongs to."""
    gpu = environment.cuda()
    return {
        "restorert": __version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "gpu": gpu.to_json() if gpu else None,
        "cpu": environment.cpu().to_json(),
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
    device = environment.cuda() or environment.cpu()
    console.print(
        f"{device}, {known['cores']} cores, {known['threads']} torch threads; "
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
