"""The version, as engines and caches record it."""

__version__ = "0.1.0"
