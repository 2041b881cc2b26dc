"""The benchmarks as a user runs them: what they print, what they record, how they refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import restorert as rr

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow  # each test starts processes that import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], text=True, capture_output=True
    )


def test_latency_records_what_it_prints(tmp_path: Path) -> None:
    target = tmp_path / "new" / "latency.json"
    ran = run(
        "latency.py", "--model", "hinet-sidd-0.5x", "--fp16", "--size", "50x34", "--repeats", "2",
        "--warmup", "0", "--compare", "torch,torch-bf16,onnxruntime,openvino-by-hand",
        "--runner", "openvino", "--json", str(target),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "22.18 M parameters (paper 22.18 M)" in ran.stdout
    record = json.loads(target.read_text())
    assert record["settings"]["precision"] == "fp16"
    assert record["settings"]["shapes"] == "fixed"
    assert record["machine"]["torch"]
    rows = record["rows"]
    names = ["torch", "torch channels_last", "onnxruntime", "openvino by hand", "openvino"]
    assert [row["runner"] for row in rows] == names
    assert all(row["size"] == "50x34" and row["repeats"] == 2 for row in rows)
    assert rows[0]["precision"] == "fp32"
    assert rows[0]["max_error"] == 0.0
    assert rows[4]["precision"] in ("bf16", "fp32", "fp16")
    # measured: bf16 67 dB and more
    assert all(row["psnr_to_fp32_db"] >= 50 for row in rows)
    assert all(row["median_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)
    # padded to 64x48: MACs in proportion to 256x256
    assert rows[0]["gmac"] == pytest.approx(39.54 * 64 * 48 / 65536, rel=1e-3)


def test_latency_says_in_one_line_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ran = run("latency.py", "--model", "hinet-sidd-0.5x", "--size", "16x16", "--repeats", "1",
              "--warmup", "0", "--compare", "none")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if "No NVIDIA GPU here" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("latency.py", ["--model", "hinett"], "unknown network 'hinett'; did you mean hinet"),
        ("latency.py", ["--compare", "caffe"], "--compare knows torch"),
        ("latency.py", ["--size", "256"], "write WIDTHxHEIGHT"),
        ("latency.py", ["--repeats", "0"], "--repeats"),
        ("latency.py", ["--runner", "caffe", "--compare", "none"], "unknown runner 'caffe'"),
        ("latency.py", ["--weights", "missing.pth"], "missing.pth"),
        ("latency.py", ["--seconds", "nan"], "argument --seconds: must be a number >= 0"),
        (
            "latency.py",
            ["--nonsense"],
            "unrecognized arguments: --nonsense; see: latency.py --help",
        ),
        ("latency.py", ["--json", "/proc/x/y.json"], "cannot write /proc/x/y.json: "),
        ("tables.py", ["--nonsense"], "unrecognized arguments: --nonsense"),
        ("sanitize.py", ["--nonsense"], "unrecognized arguments: --nonsense"),
        ("ops.py", ["--op", "softmax"], "--op knows half_instance_norm"),
        ("ops.py", ["--dtype", "int8"], "--dtype knows fp32"),
        ("ops.py", ["--layout", "chwn"], "--layout knows nchw"),
    ],
)
def test_bad_arguments_are_one_line(script: str, arguments: list[str], message: str) -> None:
    ran = run(script, *arguments)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("script", ["sanitize.py", "tables.py", "plan.py"])
def test_help_measures_nothing(script: str) -> None:
    ran = run(script, "--help")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"usage: {script}")
    assert "network   " not in ran.stdout


def test_sanitize_says_in_one_line_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ran = run("sanitize.py")
    assert ran.returncode == 2
    assert ran.stderr.startswith("sanitize: error: torch sees no NVIDIA GPU here")
    assert ran.stderr.count("\n") == 1


def test_what_every_benchmark_does_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    parser = report.parser("Measures nothing.")
    parser.prog = "nothing.py"
    parser.add_argument("--json", type=Path)
    ran: list[Path] = []

    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    def asked(path: Path, measure: object = lambda options: ran.append(options.json) or 0) -> int:
        monkeypatch.setattr(sys, "argv", ["nothing.py", "--json", str(path)])
        return report.main(parser, measure)

    assert asked(tmp_path / "a.json", interrupted) == 130
    assert capsys.readouterr().err == "nothing: stopped\n"
    (tmp_path / "file").touch()
    for path in ("file/a.json", "file/b/a.json", f"{'a' * 300}.json", f"new/{'a' * 300}.json", "."):
        assert asked(tmp_path / path) == 2
        assert re.fullmatch(r"nothing: error: cannot write .*\n", capsys.readouterr().err)
    assert ran == []
    assert asked(tmp_path / "new" / "folder" / "a.json") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # made with the results


def test_latency_takes_the_model_from_the_weights(tmp_path: Path) -> None:
    ran = run("latency.py", "--weights", "hinet-tiny", "--size", "32x32", "--repeats", "1",
              "--warmup", "0", "--compare", "none", "--runner", "torch",
              "--json", str(tmp_path / "a.json"))  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    settings = json.loads((tmp_path / "a.json").read_text())["settings"]
    assert (settings["model"], settings["weights"]) == ("hinet-tiny", "hinet-tiny")


def test_ops_records_ratio_share_and_error(tmp_path: Path) -> None:
    target = tmp_path / "ops.json"
    ran = run("ops.py", "--op", "half_instance_norm", "--dtype", "bf16", "--layout", "nchw",
              "--repeats", "1", "--json", str(target))  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for row in json.loads(target.read_text())["rows"]:
        assert row["times_faster_than_eager"] > 0
        assert row["share_of_copy"] > 0
        assert row["error"] <= 4.5e-3


def test_tables() -> None:
    ran = run("tables.py")
    assert ran.returncode == 0, ran.stderr
    assert "88.67" in ran.stdout
    assert "157.6" in ran.stdout


@pytest.mark.parametrize("script", ["latency.py", "ops.py", "sanitize.py"])
def test_what_the_gpu_script_runs_needs_no_codecs(script: str) -> None:
    absent = (
        "PIL",
        "imagecodecs",
        "tifffile",
        "openvino",
        "tensorrt",
        "tensorrt_rtx",
        "hypothesis",
    )
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent}));"
        f"sys.path.insert(0, {str(BENCHMARKS)!r}); sys.argv = [{script!r}, '--help'];"
        f"runpy.run_path({str(BENCHMARKS / script)!r}, run_name='__main__')"
    )
    ran = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("usage:")


def test_gpu_script_notes_every_step_and_counts_failures(tmp_path: Path) -> None:
    """With commands that do nothing, and no time: the script's own bookkeeping."""
    stub = tmp_path / "python3"
    stub.write_text("#!/bin/sh\nexit 3\n")
    stub.chmod(0o755)
    environment = os.environ | {
        "OUT": str(tmp_path / "out"),
        "PYTHON": str(stub),
        "BUILD": str(tmp_path / "no" / "build"),
        "NETWORKS": "hinet",
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CUDACXX": "/nonexistent",
    }
    ran = subprocess.run(
        [BENCHMARKS / "gpu.sh"], env=environment, text=True, capture_output=True, timeout=120
    )
    rows = [line.split("\t") for line in (tmp_path / "out/steps.tsv").read_text().splitlines()]
    names = [row[0] for row in rows[1:]]
    assert names == ["build", "tests", "native", "ops", "latency-hinet", "sanitize"]
    assert all(row[1] != "0" for row in rows[1:])
    assert ran.returncode == len(names)
    late = subprocess.run(
        [BENCHMARKS / "gpu.sh"], env=environment | {"BUDGET": "0"}, text=True, capture_output=True
    )
    assert late.returncode == 0
    assert (tmp_path / "out/steps.tsv").read_text().count("left out: no time") == len(names)


def test_plans_have_not_grown() -> None:
    """The quick ones; RESTORERT_ALL_PLANS=1 checks every recorded network (some ten minutes)."""
    quick = [] if os.environ.get("RESTORERT_ALL_PLANS") == "1" else ["hinet-rain", "srn-color"]
    chosen = ["--model", *quick] if quick else ["--all"]
    ran = run("plan.py", "--check", *chosen)
    if "is not usable" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "hinet-rain" in ran.stdout


def test_plan_refuses_in_one_line() -> None:
    for arguments, message in (
        (["--model", "hinett"], "unknown network 'hinett'; did you mean hinet"),
        (["--model", "hinet", "--size", "12"], "'12' is not a size; write WIDTHxHEIGHT"),
        (["--check", "--model", "hinet-sidd-0.5x"], "hinet-sidd-0.5x is not recorded in"),
        (["--check", "--model", "hinet-rain", "--precision", "bf16"], "recorded plans are fp16"),
    ):
        ran = run("plan.py", *arguments)
        assert ran.returncode == 2
        assert ran.stderr.startswith("plan: error: ")
        assert message in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_specs_state_the_papers_psnr() -> None:
    papers = tomllib.loads((BENCHMARKS / "papers.toml").read_text(encoding="utf-8"))
    published: dict[str, dict[str, float]] = {}
    for row in (row for table in papers["quality"] for row in table["rows"]):
        mean = "average_db" in row
        dataset, psnr = ("five tasks, mean", "average_db") if mean else (row["dataset"], "psnr_db")
        published.setdefault(row["network"], {})[dataset] = row[psnr]
    assert len(published) >= 9
    for name, figures in published.items():
        stated = rr.network_spec(name).paper_psnr
        assert stated is not None, name
        assert figures[stated[0]] == stated[1], name
