"""The quality benchmarks as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_benchmarks import run

pytestmark = pytest.mark.slow  # each test starts processes that import torch


def test_quality_records_what_it_prints(tmp_path: Path) -> None:
    target, sheet = tmp_path / "quality.json", tmp_path / "sheet.png"
    ran = run(
        "quality.py", "--without-bm3d", "--precision", "fp32,fp32x2", "--repeats", "1",
        "--runner", "openvino", "--json", str(target), "--picture", str(sheet),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(target.read_text())["rows"]

    def mean(method: str, task: str) -> float:
        found = [r for r in rows if r["method"].startswith(method) and r["task"] == task][:4]
        assert [r["picture"] for r in found] == ["astronaut", "coffee", "cat", "rocket"]
        assert all(f"{r['psnr_db']:.2f}" in ran.stdout for r in found)
        return float(np.mean([r["psnr_db"] for r in found]))

    # sigma 25 is 20.2 dB, a little more where clamping takes noise away
    assert 20.2 < mean("input", "noise") < 21
    assert mean("hinet-tiny", "noise") > mean("non-local means", "noise") + 1
    assert mean("hinet-tiny, fp32, 2 runs", "noise") > mean("hinet-tiny", "noise") + 0.04
    assert mean("hinet-tiny", "jpeg") > mean("input", "jpeg") + 0.5
    assert Image.open(sheet).size == (3 * 160 + 8, 4 * 160 + 12)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["quality.py", "--weights", "none.pth"], "none.pth: no such file"),
        (["quality.py", "--precision", "fp32x3"], "such as bf16, or bf16x8, not 'fp32x3'"),
        (["quality.py", "--runner", "none", "--without-bm3d"], "unknown runner 'none'"),
        (["quality.py", "--repeats", "0"], "argument --repeats: must be a whole number from 1 to"),
        (["quality.py", "--picture", "a.xyz"], "unknown suffix '.xyz'"),
        (["dcpt_miniature.py", "--images", "none"], "none: no such folder"),
        (
            ["dcpt_miniature.py", "--images", "none", "--threads=-1"],
            "--threads: must be a whole",
        ),
        (
            ["dcpt_miniature.py", "--images", "none", "--seeds", "0"],
            "--seeds: must be a whole",
        ),
        (
            ["dcpt_miniature.py", "--images", "none", "--pretrain=-1"],
            "--pretrain: must be a whole",
        ),
    ],
)
def test_refusals_are_one_line(command: list[str], message: str, tmp_path: Path) -> None:
    ran = run(*command)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
