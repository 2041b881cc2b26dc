"""CONTRIBUTING's worked backend, as it stands there: added through the list alone, and used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import restorert as rr
from restorert.backends import BACKENDS
from restorert.cli import main
from restorert.engine.sidecar import read_sidecar
from restorert.errors import EngineMismatchError

SHAPE = (1, 3, 32, 48)


@pytest.fixture(autouse=True)
def _first_of_the_list(repository: Path) -> Iterator[None]:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("## Add a backend")[2], re.DOTALL)
    assert len(code.splitlines()) <= 30
    names: dict[str, type] = {}
    exec(code, names)
    BACKENDS.insert(0, names["OnceBackend"]())
    yield
    del BACKENDS[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read from one file by all tests, so that its network is exported once."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    rr.save_network(rr.create_network("hinet", width=4, depth=2), path)
    return path


@pytest.fixture
def frames() -> np.ndarray:
    # Neither side a multiple of what the network needs: the engine pads and crops.
    return np.random.default_rng(0).integers(0, 256, (1, 29, 41, 3), dtype=np.uint8)


@pytest.mark.parametrize("runner", ["once", "auto"])
def test_build_engine(weights: Path, frames: np.ndarray, runner: str) -> None:
    engine = rr.build_engine(rr.load_network(weights), shape=SHAPE, runner=runner)
    assert engine.describe().startswith("hinet on once 1.0, fp32, ")
    np.testing.assert_array_equal(engine(frames), frames)


def test_engine_file(weights: Path, frames: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "a.once"
    path = rr.build_engine_file(rr.load_network(weights), target, shape=SHAPE, runner="once")
    assert read_sidecar(path).runner == "once"
    np.testing.assert_array_equal(rr.load_engine(path)(frames), frames)
    path.write_bytes(b"twice")
    with pytest.raises(EngineMismatchError, match="5 bytes, its sidecar says 4"):
        rr.load_engine(path)


def test_command_line(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "a.once"
    arguments = [f"--weights={weights}", "--runner=once", "--shapes=1x3x32x48", f"-o{target}"]
    assert main.main(["build", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}\n"
    assert "once 1.0" in err
    assert main.main(["inspect", str(target)]) == 0
    assert re.search(r"^runner +once 1\.0$", capsys.readouterr().out, re.MULTILINE)
    assert main.main(["doctor"]) == 0
    assert "runner once 1.0: builds, runs" in capsys.readouterr().out
