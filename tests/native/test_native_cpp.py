"""The C++ tests, through ctest."""

import json
import subprocess
from pathlib import Path


def test_cpp(native_build: Path, cmake_tools: dict[str, str]) -> None:
    def ctest(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [cmake_tools["ctest"], "--test-dir", str(native_build), *arguments]
        return subprocess.run(command, text=True, capture_output=True)

    listed = ctest("--show-only=json-v1")
    assert listed.returncode == 0, listed.stderr
    names = [test["name"] for test in json.loads(listed.stdout)["tests"]]
    assert {"core_test", "partition_test"} <= set(names), "build with -DTESTS=ON"
    ran = ctest("--output-on-failure", "--verbose")
    print(ran.stdout)  # what a test skipped, for pytest -rA
    assert ran.returncode == 0, ran.stdout + ran.stderr
