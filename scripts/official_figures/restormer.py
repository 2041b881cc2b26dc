"""Restormer as swz30/Restormer and MILab-PKU/dcpt compute it; needs einops.

The folder given holds checkouts of both, called ``Restormer`` and ``dcpt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from seeded import import_file, record

# Multiples of eight; the last of no more.
SIZES = ((256, 256), (208, 336), (40, 24))
VARIANTS = {
    "restormer-deraining": {},
    "restormer-dual-pixel-defocus-deblurring": {"inp_channels": 6, "dual_pixel_task": True},
    "restormer-real-denoising": {"LayerNorm_type": "BiasFree"},
    "restormer-gaussian-gray-denoising-blind": {
        "LayerNorm_type": "BiasFree",
        "inp_channels": 1,
        "out_channels": 1,
    },
}


def import_dcpt(checkout: Path, name: str) -> ModuleType:
    """One file of DCPT's architectures, without the rest of its BasicSR."""

    class Registry:
        @staticmethod
        def register() -> object:
            return lambda cls: cls

    def stub(module: str, **attributes: object) -> None:
        sys.modules[module] = ModuleType(module)
        sys.modules[module].__dict__.update(attributes)

    for package in ("basicsr", "basicsr.utils", "basicsr.archs"):
        stub(package, __path__=[])
    stub("basicsr.utils.registry", ARCH_REGISTRY=Registry)
    # Initialisation only, and the weights are seeded ones.
    stub("basicsr.archs.arch_util", trunc_normal_=lambda tensor, **_: tensor)
    return import_file(checkout / f"basicsr/archs/{name}.py", f"basicsr.archs.{name}")


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """The output of every distinct variant at every size."""
    original = import_file(
        checkout / "Restormer/basicsr/models/archs/restormer_arch.py", "original"
    )
    dcpt = import_dcpt(checkout / "dcpt", "restormer_arch")
    kept = record("restormer-dcpt", dcpt.Restormer(), sizes=SIZES)
    for name, arguments in VARIANTS.items():
        channels = arguments.get("inp_channels", 3)
        kept |= record(name, original.Restormer(**arguments), sizes=SIZES, channels=channels)
    return kept
