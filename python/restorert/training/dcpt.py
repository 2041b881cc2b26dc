"""DCPT's pre-training step, for every network that names features to classify by.

Hu, Jin, Yao, Lu. "Universal Image Restoration Pre-training via Degradation Classification", ICLR
2025, section 3.2. Each step alternates two stages: on clean pictures the network must return what
it was given, so that it stays able to make pictures; on degraded ones a small decoder must name the
degradation from the network's features. Afterwards the network is fine-tuned to restore, without
the decoder.
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
)
from restorert.networks.module import RestorationNetwork
from restorert.training.losses import focal_loss


def classifier_for(
    encoder: RestorationNetwork, classes: Sequence[str], *, blocks: int = 2, seed: int = 0
) -> DegradationClassifier:
    """A classifier over the features of ``encoder``, its decoder with seeded random weights.

    Args:
        encoder: in float32, on one device, where the decoder goes too.
        classes: names of the degradations, in the order of their labels.
        blocks: residual blocks at each size.
        seed: of the decoder's weights.

    Raises:
        InputError: the network has no features to classify by, or names are missing or repeated.
    """
    names = encoder.feature_modules()
    if not names:
        raise InputError(
            f"{encoder.spec.name} names no features to classify by; DCPT takes nafnet-dcpt, "
            "restormer-dcpt, promptir-dcpt, swinir-dcpt"
        )
    channels, largest, side = _feature_shapes(encoder)
    config = DecoderConfig(
        feature_channels=channels,
        blocks=blocks,
        classes=len(classes),
        # Features that begin at half size leave a level for the picture itself.
        with_image=largest < side,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = DegradationDecoder(config)
    device = next(encoder.parameters()).device
    return DegradationClassifier(encoder, decoder.to(device), classes)


def _feature_shapes(encoder: RestorationNetwork) -> tuple[tuple[int, ...], int, int]:
    """Channels of the features from full size down, side of the largest, side of the picture."""
    shadow = copy.deepcopy(encoder).to("meta")
    spec = encoder.spec
    side = -(-64 // spec.size_multiple) * spec.size_multiple
    shapes: list[tuple[int, int]] = []

    def keep(module: object, inputs: object, output: object) -> None:
        feature = output[-1] if isinstance(output, tuple) else output
        assert isinstance(feature, Tensor)
        if feature.ndim == 3:
            shapes.append((feature.shape[2], side))
        elif encoder.features_channels_last:
            shapes.append((feature.shape[3], feature.shape[2]))
        else:
            shapes.append((feature.shape[1], feature.shape[3]))

    for name in encoder.feature_modules():
        shadow.get_submodule(name).register_forward_hook(keep)
    shadow(torch.empty(1, spec.in_channels, side, side, device="meta"))
    shapes.reverse()
    return tuple(channels for channels, _ in shapes), shapes[0][1], side


def dcpt_losses(
    classifier: DegradationClassifier,
    clean: Tensor,
    degraded: Tensor,
    labels: Tensor,
    *,
    pixel_weight: float = 1.0,
    gamma: float = 0.0,
) -> Mapping[str, Tensor]:
    """Both stages of one step of DCPT; their sum is what is minimised.

    The first is ``pixel_weight * mean |f(clean) - clean|``, with gradients for the network alone,
    the second the classification of the degraded pictures, for network and decoder. As in the
    authors' code both optimisers step once, on the sum. The authors' training options, with the
    weights of the two, are not published.

    Args:
        classifier: network and decoder, in training mode.
        clean: [N, 3, H, W] in [0, 1], H and W as `DegradationClassifier.forward` takes them.
        degraded: [M, 3, H, W]; need not be the clean ones' own.
        labels: [M] int64, which degradation.
        pixel_weight: of the first stage.
        gamma: of `focal_loss`; the authors' default 0 is cross entropy.

    Returns:
        "pixel" and "class", two losses, and "scores" [M, classes] for whoever counts right answers.
    """
    pixel = pixel_weight * (classifier.encoder(clean) - clean).abs().float().mean()
    scores = classifier(degraded)
    return {"pixel": pixel, "class": focal_loss(scores, labels, gamma), "scores": scores}


@torch.no_grad()
def accuracy(classifier: DegradationClassifier, degraded: Tensor, labels: Tensor) -> float:
    """Share of the pictures whose degradation is named rightly, 0 to 1."""
    return float((classifier(degraded).argmax(dim=1) == labels).float().mean())
