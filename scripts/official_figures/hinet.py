"""HINet as megvii-model/HINet computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from seeded import import_file, record

VARIANTS = {
    "hinet": {"wf": 64, "hin_position_left": 0, "hin_position_right": 4},
    "hinet-gopro": {"wf": 64, "hin_position_left": 3, "hin_position_right": 4},
    "hinet-sidd-0.5x": {"wf": 32, "hin_position_left": 0, "hin_position_right": 4},
}


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """Both stages' outputs of every distinct variant at every size."""
    module = import_file(checkout / "basicsr/models/archs/hinet_arch.py")
    kept: dict[str, np.ndarray] = {}
    for name, arguments in VARIANTS.items():
        kept |= record(name, module.HINet(**arguments), stages=(0, 1))
    return kept
