"""Building, loading and running engines."""

from restorert.runtime.build import build_engine, build_engine_file
from restorert.runtime.engine import Engine, EngineReport
from restorert.runtime.load import load_engine
from restorert.runtime.on_demand import EngineOnDemand

__all__ = [
    "Engine",
    "EngineOnDemand",
    "EngineReport",
    "build_engine",
    "build_engine_file",
    "load_engine",
]
