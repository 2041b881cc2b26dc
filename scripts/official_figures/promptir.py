"""PromptIR as va1shn9v/PromptIR and MILab-PKU/dcpt compute it; needs einops.

The folder given holds checkouts of both, called ``PromptIR`` and ``dcpt``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from restormer import SIZES, import_dcpt
from seeded import import_file, record


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """The output of both versions at every size."""
    original = import_file(checkout / "PromptIR/net/model.py", "original")
    dcpt = import_dcpt(checkout / "dcpt", "promptir_arch")
    kept = record("promptir-dcpt", dcpt.PromptIR(), sizes=SIZES)
    return kept | record("promptir", original.PromptIR(decoder=True), sizes=SIZES)
