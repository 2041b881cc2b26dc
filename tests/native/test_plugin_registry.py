"""librestorert_plugins.so in the plugin registry of TensorRT or TensorRT-RTX. Needs no GPU."""

import contextlib
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

NAME = "half_instance_norm"


def _library() -> Path | None:
    root = Path(__file__).resolve().parents[2]
    build = Path(os.environ.get("RESTORERT_BUILD_DIR", root / "build"))
    folders = [build, root / "python" / "restorert"]
    with contextlib.suppress(ImportError):
        folders.append(Path(importlib.import_module("restorert._native").__file__ or "").parent)
    paths = (folder / "librestorert_plugins.so" for folder in folders)
    return next((path for path in paths if path.exists()), None)


def _tensorrt() -> ModuleType | None:
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    module = _tensorrt()
    if module is None:
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed")
    return module


@pytest.fixture(scope="module")
def creator(trt: ModuleType) -> Any:
    library = _library()
    if library is None:
        pytest.skip("librestorert_plugins.so was not built (it needs nvcc and TensorRT's headers)")
    registry = trt.get_plugin_registry()
    handle = registry.load_library(str(library))
    assert handle is not None
    # Version and namespace that the ONNX parser looks for where a node names neither.
    found = registry.get_creator(NAME, "1", "")
    assert found is not None, f"{NAME} is not in the registry"
    return found


def _fields(trt: ModuleType, **values: np.ndarray) -> Any:
    kinds = {"float32": trt.PluginFieldType.FLOAT32, "float64": trt.PluginFieldType.FLOAT64}
    return trt.PluginFieldCollection(
        [trt.PluginField(name, value, kinds[str(value.dtype)]) for name, value in values.items()]
    )


def test_identity(creator: Any) -> None:
    assert creator.name == NAME
    assert creator.plugin_version == "1"
    assert creator.plugin_namespace == ""
    assert [field.name for field in creator.field_names] == ["eps", "negative_slope"]


def test_create(trt: ModuleType, creator: Any) -> None:
    eps = np.array([1e-3], np.float32)
    slope = np.array([0.1], np.float32)
    fields = _fields(trt, eps=eps, negative_slope=slope)
    plugin = creator.create_plugin("layer", fields, trt.TensorRTPhase.BUILD)
    assert plugin is not None
    assert creator.create_plugin("layer", _fields(trt), trt.TensorRTPhase.BUILD) is not None


@pytest.mark.parametrize(
    "values",
    [
        {"epsilon": np.array([1e-3], np.float32)},
        {"eps": np.array([1e-3], np.float64)},
        {"eps": np.array([-1.0], np.float32)},
        {"eps": np.array([np.nan], np.float32)},
        {"negative_slope": np.array([0.1, 0.2], np.float32)},
    ],
)
def test_wrong_fields(trt: ModuleType, creator: Any, values: dict[str, np.ndarray]) -> None:
    try:
        plugin = creator.create_plugin("layer", _fields(trt, **values), trt.TensorRTPhase.BUILD)
    except Exception:  # TensorRT's bindings turn a null plugin into None or into an error
        return
    assert plugin is None
