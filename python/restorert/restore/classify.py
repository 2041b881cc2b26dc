"""Which degradation a picture suffers from."""

from __future__ import annotations

import os

import numpy as np
import torch

from restorert.errors import DeviceMemoryError, RestorertError
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.pictures.files import MAX_PIXELS, Picture, read_image
from restorert.pictures.padding import pad
from restorert.pictures.pixels import to_unit_range
from restorert.runtime.engine import is_out_of_memory
from restorert.spec import padded_size


def classify_picture(picture: Picture, classifier: DegradationClassifier) -> dict[str, float]:
    """The probability of each degradation, in [0, 1], the likeliest first.

    The picture is seen whole, padded as the encoder's runners pad it; grey is replicated to three
    channels and alpha does not count.

    Raises:
        DeviceMemoryError: not enough memory for a picture of this size.
        RestorertError: scores that are not finite.
    """
    pixels = picture.pixels
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    spec, smallest = classifier.encoder.spec, classifier.decoder.config.smallest
    height, width = (padded_size(size, spec.size_multiple, smallest) for size in pixels.shape[:2])
    device = next(classifier.parameters()).device
    try:
        image = torch.from_numpy(to_unit_range(pixels[None])).to(device)
        with torch.no_grad():
            scores = classifier(pad(image, height, width, spec.padding_mode).contiguous())[0]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(
            f"not enough memory to classify {pixels.shape[1]}x{pixels.shape[0]} pixels; "
            "crop the picture"
        ) from None
    if not scores.isfinite().all():
        raise RestorertError(f"{spec.name}'s classifier returned scores that are not finite")
    shares = torch.softmax(scores.double(), dim=0).tolist()
    ranked = sorted(zip(classifier.classes, shares, strict=True), key=lambda pair: -pair[1])
    return dict(ranked)


def classify_image(
    source: str | os.PathLike[str],
    classifier: DegradationClassifier,
    *,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, float]:
    """Classify a picture file: see `read_image` and `classify_picture`."""
    return classify_picture(read_image(source, max_pixels=max_pixels), classifier)
