"""restorert COMMAND: pictures, videos, engines, INT8 calibration, and what works here."""
