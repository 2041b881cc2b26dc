"""The machine's properties that an engine file depends on."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from restorert.files import sha256_of


@dataclass(frozen=True)
class Device:
    """A processor that engines run on.

    Attributes:
        kind: "cuda" or "cpu".
        name: the vendor's product name.
        capability: CUDA compute capability such as "9.0", or the vector extensions of a CPU that
            decide which kernels are chosen for it.
        driver: version of the NVIDIA driver; empty on a CPU.
    """

    kind: str
    name: str
    capability: str
    driver: str = ""

    def __str__(self) -> str:
        detail = (
            f"sm_{self.capability.replace('.', '')}" if self.kind == "cuda" else self.capability
        )
        driver = f", driver {self.driver}" if self.driver else ""
        return f"{self.name} ({detail}{driver})"


@dataclass(frozen=True)
class Host:
    """What an engine is built by, and needs where it runs.

    Attributes:
        runner, version: of the library.
        device: the processor.
        plugins: hex SHA-256 of the plugin library; None if there is none, or the runner uses none.
    """

    runner: str
    version: str
    device: Device
    plugins: str | None = None


@functools.cache
def cpu() -> Device:
    """The CPU of this machine."""
    name, flags = platform.processor() or platform.machine(), ""
    info = _text_of("/proc/cpuinfo")
    if match := re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE):
        name = match[1].strip()
    if match := re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE):
        flags = match[1]
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_fp16")
    present = [flag for flag in known if re.search(rf"\b{flag}\b", flags)]
    return Device("cpu", name, "+".join(present) or platform.machine())


def cpu_has_bf16() -> bool:
    """Whether the CPU has bfloat16 arithmetic (AVX512-BF16 or AMX-BF16)."""
    return "bf16" in cpu().capability


@functools.cache
def cuda() -> Device | None:
    """The current CUDA device, or None if torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device()
    major, minor = torch.cuda.get_device_capability(index)
    version = _text_of("/proc/driver/nvidia/version")
    driver = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", version)
    name = torch.cuda.get_device_name(index)
    return Device("cuda", name, f"{major}.{minor}", driver[1] if driver else "")


def _text_of(path: str) -> str:
    """A system file's text; empty where there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


PLUGIN_LIBRARY = "librestorert_plugins.so"


def plugin_library() -> Path | None:
    """The TensorRT plugin library of this installation, or None if it was not built."""
    # Next to the extension, which an editable install keeps apart from the Python files.
    extension = importlib.util.find_spec("restorert._native")
    home = Path(extension.origin).parent if extension and extension.origin else Path()
    path = Path(os.environ.get("RESTORERT_PLUGINS") or home / PLUGIN_LIBRARY)
    return path if path.is_file() else None


@functools.cache
def plugin_hash() -> str | None:
    """Hex SHA-256 of the plugin library, or None if it was not built."""
    path = plugin_library()
    return sha256_of(path) if path else None


def short_version(version: str) -> str:
    """``"2026.4.1-22982-e213a147257"`` -> ``"2026.4.1"``: the version without the build number."""
    return version.split("-", 1)[0]
