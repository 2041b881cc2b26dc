"""The order of rooms: each imports only from those above it, and data needs no torch."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import restorert

PACKAGE = Path(__file__).parents[1] / "python/restorert"

# A file or a folder a room. docs/architecture.md says what each is for.
ROOMS = [
    *("version", "errors", "files", "precision", "progress", "psnr", "record", "spec"),
    *("terminal", "command_line", "pictures", "ops", "networks", "weights", "export"),
    *("quantize", "engine", "backends", "runtime", "restore", "training", "testing", "cli"),
]


def _modules() -> dict[str, Path]:
    """Every module of the package but the package itself, which only names the public face."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    del found["restorert"]
    return found


MODULES = _modules()


def _imports(name: str) -> Iterator[tuple[str, bool]]:
    """Modules of the package that a module imports, and whether it does so when it is loaded."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test):
            inside.update(ast.walk(block))
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            module = str(node.module)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                home = restorert._HOMES.get(alias.name, module) if module == "restorert" else module
                targets.append(full if full in MODULES else home)
        for target in targets:
            if target.startswith("restorert."):
                yield target, node not in inside


def _room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_room() -> None:
    assert {_room(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_from_a_room_below_its_own(name: str) -> None:
    """Not in functions and for annotations either; `restorert` itself is the public face."""
    allowed = ROOMS[: ROOMS.index(_room(name)) + 1]
    assert [target for target, _ in _imports(name) if _room(target) not in allowed] == []


def test_there_is_no_import_circle() -> None:
    edges = {
        name: {target for target, at_load in _imports(name) if at_load and target in MODULES}
        for name in MODULES
    }
    while leaves := [name for name, targets in edges.items() if not targets & edges.keys()]:
        for name in leaves:
            del edges[name]
    assert sorted(edges) == []


def _loaded(code: str) -> set[str]:
    """The modules of a fresh interpreter after ``code``."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(shown.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "restorert.engine.sidecar",
        "restorert.engine.profile",
        "restorert.engine.recipe",
        "restorert.engine.cache",
        "restorert.engine.device",
        "restorert.pictures.files",
        "restorert.backends",
        "restorert.cli.main",
    ],
)
def test_loads_no_torch(module: str) -> None:
    loaded = _loaded(f"import {module}")
    assert module in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("torch", "onnx", "openvino")}


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_every_room_can_be_entered_alone(room: str) -> None:
    modules = [name for name in MODULES if _room(name) == room and "__main__" not in name]
    _loaded(f"import {', '.join(modules)}")


def test_documents_have_the_same_rooms_in_the_same_order(repository: Path) -> None:
    page = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)/?` \|", page, re.MULTILINE) == ROOMS
    page = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"\w+", " ".join(re.findall(r"^> (.*)$", page, re.MULTILINE))) == ROOMS
    drawing = runpy.run_path(str(repository / "scripts/draw_architecture.py"))
    (_, ground), *floors = (pair for floor in reversed(drawing["FLOORS"]) for pair in floor)
    assert [*ground.split(", "), *(name for name, _ in floors)] == ROOMS


def test_no_file_is_long_without_a_reason() -> None:
    """450 lines, or the docstring says why it is one thing."""
    long = {
        name: path
        for name, path in MODULES.items()
        if len(path.read_text(encoding="utf-8").splitlines()) > 450
    }
    unexplained = []
    for name, path in long.items():
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "one file" not in said:
            unexplained.append(name)
    assert unexplained == []
