"""MPRNet as swz30/MPRNet computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from seeded import SIZES, import_file, record

# Under weights of gain 1 the third stage's residual is of order 100.
GAIN = 0.7
# One file a task, which differ in their defaults alone. The last size has halves and quarters of
# odd multiples of 4: 72x40 is encoded in patches of 36x20, 18x10 and 9x5.
FOLDERS = {
    "mprnet-deblur": "Deblurring",
    "mprnet-denoise": "Denoising",
    "mprnet-derain": "Deraining",
}


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """All stages' outputs of every task's network at every size; the authors' last comes first."""
    kept: dict[str, np.ndarray] = {}
    for name, folder in FOLDERS.items():
        module = import_file(checkout / folder / "MPRNet.py", f"official_{folder}")
        sizes = (*SIZES[:2], (72, 40))
        kept |= record(name, module.MPRNet(), stages=(2, 1, 0), sizes=sizes, gain=GAIN)
    return kept
