"""The C++ build that the native tests run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _tool(name: str) -> str | None:
    # pip puts its own beside the interpreter, which need not be on PATH.
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _run(*command: str | Path) -> None:
    made = subprocess.run([str(part) for part in command], text=True, capture_output=True)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.fixture(scope="session")
def cmake_tools() -> dict[str, str]:
    """Paths of cmake and ctest; without them the native tests are skipped."""
    tools = {name: _tool(name) for name in ("cmake", "ctest")}
    if not all(tools.values()):
        pytest.skip("cmake is not installed, so the C++ tests cannot be built: pip install cmake")
    return {name: path for name, path in tools.items() if path}


@pytest.fixture(scope="session")
def native_build(cmake_tools: dict[str, str]) -> Path:
    """RESTORERT_BUILD_DIR, else <repository>/build/tests; configured and built here."""
    build = Path(os.environ.get("RESTORERT_BUILD_DIR") or ROOT / "build" / "tests")
    if not (build / "CMakeCache.txt").exists():
        generator = ["-G", "Ninja"] if _tool("ninja") else []
        ninja = [f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}"] if generator else []
        architectures = "native" if shutil.which("nvidia-smi") else "90"
        _run(
            cmake_tools["cmake"], "-S", ROOT, "-B", build, *generator, *ninja, "-DTESTS=ON",
            f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
            f"-DPython_EXECUTABLE={sys.executable}",
        )  # fmt: skip
    _run(cmake_tools["cmake"], "--build", build, "--parallel", "2")
    return build
