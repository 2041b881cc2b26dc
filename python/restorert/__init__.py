"""restorert: TensorRT-accelerated inference for image-restoration networks.

import restorert as rr

net = rr.create_network("hinet")
engine = rr.build_engine(net, precision="fp16", shape=(1, 3, 720, 1280))
out = engine(frames)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from restorert.backends.tensorrt import load_plugins
    from restorert.engine import EngineCache, Recipe, ShapeProfile, read_recipe
    from restorert.errors import RestorertError
    from restorert.export import export_onnx
    from restorert.networks import create_network, list_networks, network_spec
    from restorert.quantize import (
        CalibrationCache,
        calibrate,
        quantize_network,
        read_calibration,
        read_patches,
    )
    from restorert.restore import (
        FolderReport,
        SelfEnsemble,
        VideoReport,
        classify_image,
        restore_folder,
        restore_image,
        restore_video,
    )
    from restorert.runtime import (
        Engine,
        EngineOnDemand,
        build_engine,
        build_engine_file,
        load_engine,
    )
    from restorert.spec import NetworkSpec
    from restorert.weights import load_classifier, load_network, save_network

# Loaded on first use: `restorert --help` needs neither torch nor a runner.
_HOMES = {
    "CalibrationCache": "restorert.quantize",
    "Engine": "restorert.runtime",
    "EngineCache": "restorert.engine",
    "EngineOnDemand": "restorert.runtime",
    "FolderReport": "restorert.restore",
    "NetworkSpec": "restorert.spec",
    "Recipe": "restorert.engine",
    "RestorertError": "restorert.errors",
    "SelfEnsemble": "restorert.restore",
    "ShapeProfile": "restorert.engine",
    "VideoReport": "restorert.restore",
    "build_engine": "restorert.runtime",
    "build_engine_file": "restorert.runtime",
    "calibrate": "restorert.quantize",
    "classify_image": "restorert.restore",
    "create_network": "restorert.networks",
    "export_onnx": "restorert.export",
    "list_networks": "restorert.networks",
    "load_classifier": "restorert.weights",
    "load_engine": "restorert.runtime",
    "load_network": "restorert.weights",
    "load_plugins": "restorert.backends.tensorrt",
    "network_spec": "restorert.networks",
    "quantize_network": "restorert.quantize",
    "read_calibration": "restorert.quantize",
    "read_patches": "restorert.quantize",
    "read_recipe": "restorert.engine",
    "restore_folder": "restorert.restore",
    "restore_image": "restorert.restore",
    "restore_video": "restorert.restore",
    "save_network": "restorert.weights",
}

__all__ = [
    "CalibrationCache",
    "Engine",
    "EngineCache",
    "EngineOnDemand",
    "FolderReport",
    "NetworkSpec",
    "Recipe",
    "RestorertError",
    "SelfEnsemble",
    "ShapeProfile",
    "VideoReport",
    "__version__",
    "build_engine",
    "build_engine_file",
    "calibrate",
    "classify_image",
    "create_network",
    "export_onnx",
    "list_networks",
    "load_classifier",
    "load_engine",
    "load_network",
    "load_plugins",
    "network_spec",
    "quantize_network",
    "read_calibration",
    "read_patches",
    "read_recipe",
    "restore_folder",
    "restore_image",
    "restore_video",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'restorert' has no attribute {name!r}")
