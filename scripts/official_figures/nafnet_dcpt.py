"""NAFNet as MILab-PKU/dcpt computes it, and its degradation classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from _basicsr import hook_features, import_arch
from seeded import load_seeded, record, seeded_picture, seeded_state_dict
from torch import Tensor, nn

ARGUMENTS = {
    "width": 64,
    "enc_blk_nums": [1, 1, 1, 28],
    "middle_blk_num": 1,
    "dec_blk_nums": [1, 1, 1, 1],
}
CLASSES = 5
PICTURES = ((128, 128), (48, 80))
# Decoders alone: class, arguments, and the shapes of the features for a picture of 32x32.
DECODERS = {
    "image": (
        "PromptIR_DC",
        {"feature_dims": [6, 12, 12]},
        ((2, 6, 16, 16), (2, 12, 8, 8), (2, 12, 4, 4)),
    ),
    "tokens": (
        "PromptIR_NoImg_DC",
        {"feature_dims": [10, 10, 10], "downsample": True, "num_res_blocks": 1},
        ((2, 1024, 10),) * 3,
    ),
}


def seeded_features(shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """Normal features of deviation 1."""
    named = seeded_state_dict({f"{i}": shape for i, shape in enumerate(shapes)}, seed=3)
    return [t * float(np.prod(t.shape[1:])) ** 0.5 for t in named.values()]


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """The network, and the logits of decoders: on its features, on tokens, with the picture."""
    archs = "basicsr.archs"
    network = import_arch(checkout, archs, "nafnet_arch").NAFNetBaseline(**ARGUMENTS)
    kept = record("nafnet-dcpt", network)
    decoders = import_arch(checkout, archs, "degrad_classify_arch")
    decoder = decoders.PromptIR_NoImg_DC(feature_dims=[64, 128, 256, 512], num_classes=CLASSES)
    _record_names(kept, "encoder", load_seeded(decoder))
    features = hook_features(network, "decoder")
    with torch.no_grad():
        for height, width in PICTURES:
            features.clear()
            picture = seeded_picture(height, width)
            network(picture, hook=True)
            kept[f"classify/encoder/{height}x{width}"] = decoder(picture, features[::-1]).numpy()
        for name, (kind, arguments, shapes) in DECODERS.items():
            decoder = load_seeded(getattr(decoders, kind)(num_classes=4, **arguments))
            _record_names(kept, name, decoder)
            logits = decoder(seeded_picture(32, 32, batch=2), seeded_features(shapes))
            kept[f"classify/{name}/32x32"] = logits.numpy()
    return kept


def _record_names(kept: dict[str, np.ndarray], name: str, decoder: nn.Module) -> None:
    kept[f"classify/{name}/names"] = np.array(sorted(decoder.state_dict()))
