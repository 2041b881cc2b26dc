"""NAFNet as megvii-research/NAFNet computes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _basicsr import import_arch
from seeded import SIZES, figures, load_seeded, record, seeded_picture
from torch import Tensor, nn

DEEP = {"enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]}
MANY = {"enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2, 2, 2, 2]}
# Class, arguments, and sizes beside the usual ones: wider and taller than TLC's window of 384.
VARIANTS = {
    "nafnet-gopro": ("NAFNetLocal", {"width": 64, **DEEP}, ((432, 400),)),
    "nafnet-gopro-width32": ("NAFNetLocal", {"width": 32, **DEEP}, ((80, 416),)),
    "nafnet-sidd": ("NAFNet", {"width": 64, **MANY}, ()),
    "nafnet-sidd-width32": ("NAFNet", {"width": 32, **MANY}, ()),
}
# A window of 48 pixels, where pooling over it and over the picture differ by far.
LOCAL = {"width": 8, "enc_blk_nums": [1, 2], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}
LOCAL_SIZES = ((208, 336), (48, 16), (16, 80))
# H, W, window.
POOLS = ((40, 56, 24), (16, 56, 24), (56, 16, 24), (16, 16, 24), (40, 56, 25), (24, 24, 23))


def load_lively(network: nn.Module) -> nn.Module:
    """`load_seeded`, with norms around 1: what attention pools then weighs in the picture."""
    load_seeded(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("norm1.weight", "norm2.weight")):
                parameter.add_(1.0)
    return network


def uneven_picture(height: int, width: int, batch: int = 1) -> Tensor:
    """Noise that grows from left to right, so that windows differ."""
    return seeded_picture(height, width, batch) * torch.linspace(0.0, 1.0, width)


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """Every distinct variant at every size, one with a small window, and TLC's pooling alone."""
    module = import_arch(checkout, "basicsr.models.archs", "NAFNet_arch")
    kept: dict[str, np.ndarray] = {}
    for name, (kind, arguments, sizes) in VARIANTS.items():
        network = getattr(module, kind)(**arguments)
        kept |= record(name, network, sizes=SIZES + sizes)
    local = module.NAFNetLocal(**LOCAL, train_size=(1, 3, 32, 32))
    load_lively(local)
    for height, width in LOCAL_SIZES:
        with torch.no_grad():
            output = local(uneven_picture(height, width))
        kept[f"local/{height}x{width}"] = figures(output)["samples"]
    pooling = import_arch(checkout, "basicsr.models.archs", "local_arch")
    for height, width, window in POOLS:
        pooled = pooling.AvgPool2d(kernel_size=[window, window])(seeded_picture(height, width))
        kept[f"pool/{height}x{width}/{window}"] = pooled.numpy()
    return kept
