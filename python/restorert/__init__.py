"""restorert: TensorRT-accelerated inference for image-restoration networks.

import restorert as rr

net = rr.create_network("hinet")
engine = rr.build_engine(net, precision="fp16", shape=(1, 3, 720, 1280))
out = engine(frames)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from restorert.version import __version__

# For type checkers, which take a name "as" itself for a re-export.
if TYPE_CHECKING:
    from restorert.backends.tensorrt import load_plugins as load_plugins
    from restorert.engine import EngineCache as EngineCache
    from restorert.engine import Recipe as Recipe
    from restorert.engine import ShapeProfile as ShapeProfile
    from restorert.engine import read_recipe as read_recipe
    from restorert.errors import RestorertError as RestorertError
    from restorert.export import export_onnx as export_onnx
    from restorert.networks import create_network as create_network
    from restorert.networks import list_networks as list_networks
    from restorert.networks import network_spec as network_spec
    from restorert.quantize import CalibrationCache as CalibrationCache
    from restorert.quantize import calibrate as calibrate
    from restorert.quantize import quantize_network as quantize_network
    from restorert.quantize import read_calibration as read_calibration
    from restorert.quantize import read_patches as read_patches
    from restorert.restore import FolderReport as FolderReport
    from restorert.restore import SelfEnsemble as SelfEnsemble
    from restorert.restore import VideoReport as VideoReport
    from restorert.restore import classify_image as classify_image
    from restorert.restore import restore_folder as restore_folder
    from restorert.restore import restore_image as restore_image
    from restorert.restore import restore_video as restore_video
    from restorert.runtime import Engine as Engine
    from restorert.runtime import EngineOnDemand as EngineOnDemand
    from restorert.runtime import build_engine as build_engine
    from restorert.runtime import build_engine_file as build_engine_file
    from restorert.runtime import load_engine as load_engine
    from restorert.spec import NetworkSpec as NetworkSpec
    from restorert.weights import load_classifier as load_classifier
    from restorert.weights import load_network as load_network
    from restorert.weights import save_network as save_network

# At run time a name is loaded on first use: `restorert --help` needs neither torch nor a runner.
_ROOMS = {
    "backends.tensorrt": ("load_plugins",),
    "engine": ("EngineCache", "Recipe", "ShapeProfile", "read_recipe"),
    "errors": ("RestorertError",),
    "export": ("export_onnx",),
    "networks": ("create_network", "list_networks", "network_spec"),
    "quantize": (
        "CalibrationCache",
        "calibrate",
        "quantize_network",
        "read_calibration",
        "read_patches",
    ),
    "restore": (
        "FolderReport",
        "SelfEnsemble",
        "VideoReport",
        "classify_image",
        "restore_folder",
        "restore_image",
        "restore_video",
    ),
    "runtime": ("Engine", "EngineOnDemand", "build_engine", "build_engine_file", "load_engine"),
    "spec": ("NetworkSpec",),
    "weights": ("load_classifier", "load_network", "save_network"),
}
_HOMES = {name: f"restorert.{room}" for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'restorert' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value
