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


@pytest.fixture
def frames() -> np.ndarray:
    # Neither side a multiple of what the network needs: the engine pads and crops.
    return np.random.default_rng(0).integers(0, 256, (1, 29, 41, 3), dtype=np.uint8)


@pytest.mark.parametrize("runner", ["once", "auto"])
def test_build_engine(
    network: rr.networks.RestorationNetwork, frames: np.ndarray, runner: str
) -> None:
    engine = rr.build_engine(network, shape=SHAPE, runner=runner)
    assert engine.describe().startswith("hinet on once 1.0, fp32, ")
    np.testing.assert_array_equal(engine(frames), frames)


def test_engine_file(
    network: rr.networks.RestorationNetwork, frames: np.ndarray, tmp_path: Path
) -> None:
    path = rr.build_engine_file(network, tmp_path / "a.once", shape=SHAPE, runner="once")
    assert read_sidecar(path).runner == "once"
    np.testing.assert_array_equal(rr.load_engine(path)(frames), frames)
    path.write_bytes(b"twice")
    with pytest.raises(EngineMismatchError, match="5 bytes, its sidecar says 4"):
        rr.load_engine(path)


def test_command_line(
    network: rr.networks.RestorationNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rr.save_network(network, tmp_path / "a.safetensors")
    arguments = ["build", f"--weights={tmp_path / 'a.safetensors'}", "--runner=once"]
    arguments += ["--shapes=1x3x32x48", f"--output={tmp_path / 'a.once'}"]
    assert main.main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'a.once'}\n"
    assert "once" in err
    assert main.main(["inspect", str(tmp_path / "a.once")]) == 0
    assert re.search(r"^runner +once 1\.0$", capsys.readouterr().out, re.MULTILINE)
    assert main.main(["doctor"]) == 0
    assert "runner once 1.0: builds, runs" in capsys.readouterr().out
