"""What a release consists of: the wheel's files, the version, the citation, the drawing."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import restorert as rr


def test_wheel(repository: Path, tmp_path: Path) -> None:
    """Without the compiled parts, which CMake installs beside these files."""
    pytest.importorskip("scikit_build_core")
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from scikit_build_core.build import build_wheel;"
            "build_wheel(sys.argv[1], {'wheel.cmake': 'false'})",
            str(tmp_path),
        ],
        cwd=repository,
        text=True,
        capture_output=True,
    )
    assert ran.returncode == 0, ran.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"restorert-{rr.__version__}.dist-info/entry_points.txt")
    assert b"restorert = restorert.cli.main:main" in entry_points
    # What type checkers look for: https://peps.python.org/pep-0561/
    assert "restorert/py.typed" in names
    package = repository / "python/restorert"
    kept = {".py", ".safetensors", ".json", ".typed"}
    files = [path for path in package.rglob("*") if path.suffix in kept and path.is_file()]
    assert {f"restorert/{path.relative_to(package)}" for path in files} <= names


def test_versions(repository: Path) -> None:
    for file, pattern in (
        ("pyproject.toml", r'^version = "(.*)"$'),
        ("CITATION.cff", r"^version: (.*)$"),
        ("CHANGELOG.md", r"^What will be (.*)\.$|^## \[(\d.*)\]"),
    ):
        text = (repository / file).read_text(encoding="utf-8")
        found = re.search(pattern, text, re.MULTILINE)
        assert found, file
        assert rr.__version__ in found.groups(), file


def test_every_paper_is_cited(repository: Path) -> None:
    """By its first author and its year or arXiv number."""
    text = (repository / "CITATION.cff").read_text(encoding="utf-8")
    references = re.split("^  - type: ", text.partition("references:")[2], flags=re.MULTILINE)[1:]
    cited: dict[str, list[str]] = {}
    for reference in references:
        first = re.findall(r"family-names: ([^}]+)", reference)[0]
        cited.setdefault(first, []).extend(re.findall(r"(?:year: |arXiv:)(\S+)", reference))
    for name in rr.list_networks():
        paper = rr.network_spec(name).paper
        author, where = re.findall(r"\((.+?) et al\., ([^)]+)\)", paper)[0]
        assert where.split()[-1] in cited[author], paper


def test_the_drawing_is_the_scripts(repository: Path) -> None:
    names = runpy.run_path(str(repository / "scripts/draw_architecture.py"))
    assert names["TARGET"].read_text(encoding="utf-8") == names["draw"]()
