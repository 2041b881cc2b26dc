"""DCPT's SwinIR as MILab-PKU/dcpt computes it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from seeded import import_file, record, widen_norms
from swinir import without_timm

# options/all_in_one/test/test_SwinIR_5d.yml, network_g.
ARGUMENTS = {
    "embed_dim": 180,
    "depths": [6] * 6,
    "num_heads": [6] * 6,
    "mlp_ratio": 2.0,
    "window_size": 8,
    "upscale": 1,
}


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """The output at every size."""
    without_timm()
    registry = ModuleType("basicsr.utils.registry")
    registry.__dict__["ARCH_REGISTRY"] = SimpleNamespace(register=lambda: lambda network: network)
    for name in ("basicsr", "basicsr.utils"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["basicsr.utils.registry"] = registry
    module = import_file(checkout / "basicsr/archs/swinir_arch.py", "official_swinir_dcpt")
    return record("swinir-dcpt", module.SwinIR(**ARGUMENTS), adjust=widen_norms)
