"""Two checkpoint files -> degradation classifier."""

from __future__ import annotations

import os
from collections.abc import Sequence

from restorert.errors import CheckpointError, InputError, RestorertError, printable, reason_of
from restorert.networks.degradation_classifier import (
    DegradationClassifier,
    decoder_from_state_dict,
)
from restorert.weights.checkpoint import read_checkpoint
from restorert.weights.load import check_finite, load_network


def load_classifier(
    encoder_path: str | os.PathLike[str],
    decoder_path: str | os.PathLike[str],
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
) -> DegradationClassifier:
    """DCPT's degradation classifier (Hu et al., ICLR 2025) from its two checkpoints.

    Args:
        encoder_path: a restoration network's checkpoint, as for `load_network` (``net_g_*.pth`` of
            the authors' pre-training).
        decoder_path: the checkpoint of the classifying decoder (``net_dc_*.pth``).
        name: the encoder's variant, as for `load_network`.
        classes: names of the decoder's classes. The authors publish neither names nor their order;
            None uses the order of their test options for five classes, and of the paper's table 16
            for ten.

    Returns:
        A module in eval mode, float32, on the CPU.

    Raises:
        UnknownNetworkError: no network is called ``name``.
        CheckpointError: a file cannot be read or has other content.
        InputError: the two files do not belong together, or names are missing.
    """
    checkpoint = read_checkpoint(decoder_path)
    try:
        decoder = decoder_from_state_dict(checkpoint.tensors)
        if decoder is not None:
            check_finite(checkpoint.tensors)
    except RestorertError as error:
        raise CheckpointError(f"{decoder_path}: {printable(str(error))}") from None
    except Exception as error:  # malicious shapes fail anywhere in torch
        raise CheckpointError(
            f"{decoder_path}: no classifier can be built from its tensors ({reason_of(error)})"
        ) from None
    if decoder is None:
        first = printable(", ".join(list(checkpoint.tensors)[:3]))
        raise CheckpointError(
            f"{decoder_path}: {len(checkpoint.tensors)} tensors (first {first}) that are not a "
            "degradation classifier's; give the encoder first, then the classifier"
        )
    encoder = load_network(encoder_path, name=name)
    try:
        return DegradationClassifier(encoder, decoder, classes).eval()
    except InputError as error:
        raise InputError(f"{encoder_path} and {decoder_path}: {error}") from None
