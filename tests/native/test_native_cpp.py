"""The C++ tests through ctest, in RESTORERT_BUILD_DIR or <repository>/build (made if missing)."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], text=True, capture_output=True)


@cache
def _build_dir() -> Path | str:
    """The build folder, or the reason why there is none."""
    given = os.environ.get("RESTORERT_BUILD_DIR")
    build = Path(given) if given else ROOT / "build"
    if not (build / "CMakeCache.txt").exists():
        if given:
            return f"RESTORERT_BUILD_DIR={given} holds no build"
        if shutil.which("cmake") is None:
            return "cmake is not installed, so the C++ tests cannot be built"
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        architectures = ["-DCMAKE_CUDA_ARCHITECTURES=native"] if shutil.which("nvidia-smi") else []
        made = _run(
            "cmake", "-S", ROOT, "-B", build, *generator, *architectures, "-DTESTS=ON",
            f"-DPython_EXECUTABLE={sys.executable}",
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
    made = _run("cmake", "--build", build, "--parallel", "2")
    assert made.returncode == 0, made.stdout + made.stderr
    return build


def test_cpp() -> None:
    build = _build_dir()
    if isinstance(build, str):
        pytest.skip(build)
    listed = _run("ctest", "--test-dir", build, "--show-only=json-v1")
    assert listed.returncode == 0, listed.stderr
    names = [test["name"] for test in json.loads(listed.stdout)["tests"]]
    assert {"core_test", "half_instance_norm_test"} <= set(names), "build with -DTESTS=ON"
    ran = _run("ctest", "--test-dir", build, "--output-on-failure", "--verbose")
    print(ran.stdout)  # what a test skipped, for pytest -rA
    assert ran.returncode == 0, ran.stdout + ran.stderr
