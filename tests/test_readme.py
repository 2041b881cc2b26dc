"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import restorert as rr
from restorert.cli import main
from restorert.networks.counts import count_variant

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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


def test_network_table() -> None:
    text = (Path(__file__).parents[1] / "docs/networks.md").read_text(encoding="utf-8")
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


def test_commands_parse(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command line of the README is one that the parser takes."""
    block = re.search(r"## The command line\n\n```sh\n(.*?)```", README, re.DOTALL)
    assert block
    commands = re.sub(r"\\\n\s*", " ", block[1]).splitlines()
    assert len(commands) >= 6
    for command in commands:
        words = command.split("#")[0].split()
        if words[1] in ("networks", "doctor"):
            assert main(words[1:]) == 0
        else:
            # parsed, then refused in one line for the file that is not there or already done
            with pytest.raises(SystemExit):
                main([words[1], "--help"])
            known = capsys.readouterr().out
            assert all(w.split("=")[0] in known for w in words[2:] if w.startswith("--"))
