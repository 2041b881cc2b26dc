"""SwinIR as JingyunLiang/SwinIR computes it, for the tasks that keep the picture's size."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from seeded import SIZES, import_file, record, widen_norms
from torch import nn

# main_test_swinir.py, define_model.
COMMON: dict[str, Any] = {
    "upscale": 1,
    "depths": [6] * 6,
    "embed_dim": 180,
    "num_heads": [6] * 6,
    "mlp_ratio": 2,
    "upsampler": "",
    "resi_connection": "1conv",
}
DENOISE = COMMON | {"img_size": 128, "window_size": 8, "img_range": 1.0}
JPEG = COMMON | {"img_size": 126, "window_size": 7, "img_range": 255.0}
SIZES_OF_SEVEN = ((252, 252), (210, 336), (49, 14))
VARIANTS = {
    "swinir-denoise-color-15": (DENOISE | {"in_chans": 3}, SIZES),
    "swinir-denoise-gray-15": (DENOISE | {"in_chans": 1}, SIZES[1:]),
    "swinir-jpeg-gray-10": (JPEG | {"in_chans": 1}, SIZES_OF_SEVEN),
    "swinir-jpeg-color-10": (JPEG | {"in_chans": 3}, SIZES_OF_SEVEN[1:]),
}


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """Outputs, and names and shapes of the buffers that follow from the sizes."""
    without_timm()
    module = import_file(checkout / "models/network_swinir.py", "official_swinir")
    kept: dict[str, np.ndarray] = {}
    for name, (arguments, sizes) in VARIANTS.items():
        network = module.SwinIR(**arguments)
        derived = hide_buffers(network)
        channels = arguments["in_chans"]
        kept |= record(name, network, sizes=sizes, channels=channels, adjust=widen_norms)
        kept[f"{name}/derived_names"] = np.array(list(derived))
        kept[f"{name}/derived_shapes"] = np.array([str(list(s)) for s in derived.values()])
    return kept


def hide_buffers(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Keep the network's buffers out of its state dict, as seeded weights must not replace them."""
    hidden = {name: tuple(buffer.shape) for name, buffer in network.named_buffers()}
    for module in network.modules():
        module._non_persistent_buffers_set.update(module._buffers)
    return hidden


def without_timm() -> None:
    """Stand in for the three helpers that SwinIR imports from timm."""

    class DropPath(nn.Identity):
        """Does nothing in evaluation."""

    layers = ModuleType("timm.models.layers")
    layers.__dict__.update(
        DropPath=DropPath,
        to_2tuple=lambda value: value if isinstance(value, tuple) else (value, value),
        trunc_normal_=nn.init.trunc_normal_,
    )
    for name in ("timm", "timm.models"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["timm.models.layers"] = layers
