"""What the README, the documents and CONTRIBUTING show, run or parsed as it stands there."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import restorert as rr
from restorert.backends import runner_names
from restorert.cli.main import parser
from restorert.errors import InputError
from restorert.networks.counts import count_variant
from restorert.training.__main__ import _parser as training_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

PROGRAMS = ("restorert ", "python -m restorert.training ", "python benchmarks/")

Parse = Callable[[str], None]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Parse:
    """Parses a command line as its program would; a mistake raises InputError."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("report")
    monkeypatch.setattr(report, "main", lambda parser, run: parser)

    def parsed(command: str) -> None:
        program, *words = shlex.split(command, comments=True)
        if program == "restorert":
            known = parser()
        elif words[0] == "-m":
            known, words = training_parser(), words[1:]
        else:
            known = importlib.import_module(Path(words[0]).stem).main()
        options = known.parse_args(words if program == "restorert" else words[1:])
        model = getattr(options, "model", None)
        for name in [model] if isinstance(model, str) else model or []:
            if name != "NAME":
                rr.network_spec(name)
        if getattr(options, "runner", "auto") not in (*runner_names(), "NAME"):
            raise InputError(f"no runner {options.runner}")

    return parsed


def _commands(page: Path) -> list[str]:
    """The lines of a page's ``sh`` blocks and its code spans that call one of our programs.

    A span that only names a command, such as `restorert build`, is no call.
    """
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for b in blocks for line in re.sub(r"\\\n\s*", " ", b).splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    spans = [" ".join(span.split()) for span in spans]
    lines += [span for span in spans if span.count(" ") > span.startswith("restorert ")]
    return [line for line in lines if line.startswith(PROGRAMS)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(parse: Parse, page: Path) -> None:
    for command in _commands(page):
        try:
            with contextlib.suppress(SystemExit):  # --help
                parse(command)
        except rr.RestorertError as error:
            pytest.fail(f"{command}: {error}")


def test_commands_are_found() -> None:
    assert len(_commands(ROOT / "README.md")) >= 20
    assert sum(len(_commands(page)) for page in PAGES) >= 40


@pytest.mark.parametrize(
    "command",
    [
        "restorert restore in.png --fp16",
        "restorert build --model hinet --shapes",
        "restorert inspect hinet.engine --codec libx265",
        "restorert build --model hinett",
        "restorert build --model hinet --runner tensorflow",
        "restorert calibrate --weights a.pth --images photos/ -n 0 -o a.onnx",
        "python -m restorert.training --images DIR",
        "python benchmarks/latency.py --model hinet --repeats N",
        "python benchmarks/plan.py --models hinet",
    ],
)
def test_wrong_commands_do_not_parse(parse: Parse, command: str) -> None:
    with pytest.raises(rr.RestorertError):
        parse(command)


def test_make_targets() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES:
        shown = re.findall(r"^make (\w+)|`make (\w+)`", page.read_text(encoding="utf-8"), re.M)
        assert {block or span for block, span in shown} <= set(targets), page.name


def test_the_command_is_on_the_path() -> None:
    """What README says after `make bench`, in the environment that this Python is of."""
    (line,) = re.findall(r"^(\. \.venv/bin/activate)", README, re.MULTILINE)
    activate = Path(sys.prefix, "bin/activate")
    if not Path(sys.prefix, "bin/restorert").exists():
        pytest.skip("restorert is not installed in a virtual environment here")
    line = line.replace(".venv/bin/activate", shlex.quote(str(activate)))
    ran = subprocess.run(
        ["sh", "-c", f"{line} && restorert --version"],
        env={"PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
    )
    assert (ran.stdout, ran.stderr) == (f"restorert {rr.__version__}\n", "")


def test_python_names() -> None:
    """README's table of the Python interface has every public name, and pages use no other."""
    table = README.partition("## The Python interface")[2].partition("\n## ")[0]
    listed = re.findall(r"`(\w+)(?:\([^`]*)?`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    assert sorted(listed) == sorted(set(rr.__all__) - {"__version__"})
    for page in PAGES:
        used = set(re.findall(r"\brr\.(\w+)", page.read_text(encoding="utf-8")))
        assert used <= set(rr.__all__), page.name


@pytest.mark.slow
def test_python_example(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    ran = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, text=True, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "(1, 180, 240, 3) uint8" in ran.stdout
    assert (tmp_path / "hinet.onnx").stat().st_size > 170e6


@pytest.mark.slow
def test_network_table() -> None:
    text = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \|(.*)\|$", text, re.MULTILINE)
    rows = [(name, [c.strip() for c in cells.split("|")]) for name, cells in rows]
    table = {name: cells for name, cells in rows if name in rr.list_networks()}
    assert list(table) == rr.list_networks()
    for name, (task, parameters, gmac, psnr, multiple, tile) in table.items():
        spec, count = rr.network_spec(name), count_variant(name)
        assert task == spec.task
        assert parameters == f"{count.parameters / 1e6:.2f} M"
        assert gmac == f"{count.macs.exact / 1e9:.1f}"
        stated = spec.paper_psnr
        assert psnr == ("-" if stated is None else f"{stated[1]:.2f} {stated[0]}")
        assert multiple == str(spec.size_multiple)
        assert tile == str(spec.tile or "-")


def test_the_int8_table_is_the_committed_result() -> None:
    rows = json.loads((ROOT / "benchmarks/results/cpu/int8-conditions.json").read_text())["rows"]
    page = (ROOT / "docs/int8.md").read_text()
    for row in rows:
        cells = (
            row["condition"],
            f"{row['drop_db']:.3f}",
            f"{row['worst_drop_db']:.3f}",
            f"{row['fp32_db']:.2f}",
            f"{row['shift_levels']:.3f}",
            f"{row['worst_shift_levels']:+.3f}",
        )
        assert f"| {' | '.join(cells)} |" in page
    readme = (ROOT / "README.md").read_text()
    assert f"costs at most {max(row['drop_db'] for row in rows):.2f} dB on average" in readme
    worst = max(row["worst_drop_db"] for row in rows)
    assert f"Single pictures lost up to {worst + 1e-9:.2f} dB" in readme
