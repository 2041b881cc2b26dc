"""DCPT's pre-training step, for every network with `RestorationNetwork.feature_modules`.

Hu, Jin, Yao, Lu. "Universal Image Restoration Pre-training via Degradation Classification", ICLR
2025, section 3.2. Each step has two stages: the network must return clean pictures unchanged, so
that it remains able to generate pictures, and a small decoder must classify the degradation of
degraded pictures from the network's features. Afterwards the network is fine-tuned to restore,
without the decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from restorert.errors import InputError
from restorert.networks.degradation_classifier import (
    DecoderConfig,
    DegradationClassifier,
    DegradationDecoder,
    as_picture,
    read_features,
)
from restorert.networks.module import RestorationNetwork
from restorert.training.losses import focal_loss


def classifier_for(
    encoder: RestorationNetwork, classes: Sequence[str], *, blocks: int = 2, seed: int = 0
) -> DegradationClassifier:
    """A classifier on the features of ``encoder``, with a decoder of seeded random weights.

    Args:
        encoder: in float32, on one device, on which the decoder is put, too.
        classes: names of the degradations, in the order of their labels.
        blocks: residual blocks at each size.
        seed: of the decoder's weights.

    Raises:
        InputError: the network has no features to classify, or names are missing or repeated.
    """
    if not encoder.feature_modules():
        raise InputError(
            f"{encoder.spec.name} has no features to classify; DCPT takes nafnet-dcpt, "
            "restormer-dcpt, promptir-dcpt, swinir-dcpt"
        )
    picture = torch.empty(encoder.spec.shape_for(64, 64), device="meta")
    features = read_features(copy.deepcopy(encoder).to("meta"), picture)
    shapes = [as_picture(feature, picture).shape for feature in features]
    config = DecoderConfig(
        feature_channels=tuple(shape[1] for shape in shapes),
        blocks=blocks,
        classes=len(classes),
        # Features that begin at half size leave a level for the picture itself.
        with_image=shapes[0][3] < picture.shape[3],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = DegradationDecoder(config)
    device = next(encoder.parameters()).device
    return DegradationClassifier(encoder, decoder.to(device), classes)


def dcpt_losses(
    classifier: DegradationClassifier,
    clean: Tensor,
    degraded: Tensor,
    labels: Tensor,
    *,
    pixel_weight: float = 1.0,
    gamma: float = 0.0,
) -> Mapping[str, Tensor]:
    """The losses of both stages of one step of DCPT; their sum is to be minimised.

    The first is ``pixel_weight * mean |f(clean) - clean|``, with gradients for the network alone,
    the second the classification of the degraded pictures, for network and decoder. As in the
    authors' code, both optimisers step once, on the sum. The authors' training options, and with
    them the two weights, are not published.

    Args:
        classifier: network and decoder, in training mode.
        clean: [N, 3, H, W] in [0, 1], H and W as `DegradationClassifier.forward` takes them.
        degraded: [M, 3, H, W]; need not be degraded from ``clean``.
        labels: [M] int64, which degradation.
        pixel_weight: of the first stage.
        gamma: of `focal_loss`; the authors' default 0 is cross entropy.

    Returns:
        The losses "pixel" and "class", and "scores" [M, classes], to count correct answers.
    """
    pixel = pixel_weight * (classifier.encoder(clean) - clean).abs().float().mean()
    scores = classifier(degraded)
    return {"pixel": pixel, "class": focal_loss(scores, labels, gamma), "scores": scores}


@torch.no_grad()
def accuracy(classifier: DegradationClassifier, degraded: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose degradation is classified correctly, 0 to 1."""
    return float((classifier(degraded).argmax(dim=1) == labels).float().mean())
