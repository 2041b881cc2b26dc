"""Engine files as data: shape profiles, recipes, build requests, sidecars and the cache."""

from __future__ import annotations

from restorert.engine.cache import EngineCache
from restorert.engine.profile import ShapeProfile
from restorert.engine.recipe import Recipe, read_recipe
from restorert.engine.sidecar import Sidecar

__all__ = ["EngineCache", "Recipe", "ShapeProfile", "Sidecar", "read_recipe"]
