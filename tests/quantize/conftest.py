from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

import restorert as rr
from restorert.quantize import Patches
from restorert.quantize import quantize as module


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small photographs."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, box in (
        ("astronaut", (100, 60, 190, 150)),
        ("coffee", (200, 100, 290, 190)),
        ("rocket", (200, 200, 290, 250)),
    ):
        Image.fromarray(getattr(data, name)()).crop(box).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def patches(pictures: Path, network: rr.networks.RestorationNetwork) -> Patches:
    return rr.read_patches(pictures, network.spec, 6, size=48, conditions=["given"])


@pytest.fixture(scope="session")
def half_file(
    tmp_path_factory: pytest.TempPathFactory, network: rr.networks.RestorationNetwork
) -> Path:
    path = tmp_path_factory.mktemp("half") / "half.onnx"
    return rr.export_onnx(network, path, precision="fp16")


@pytest.fixture
def exported_once(half_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Tracing takes seconds: `quantize_network` finds it done."""

    def copy(network: object, path: Path, **_: object) -> None:
        path.write_bytes(half_file.read_bytes())

    monkeypatch.setattr(module, "export_onnx", copy)
    return copy
