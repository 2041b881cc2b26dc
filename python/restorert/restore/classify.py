"""Classifying the degradation of a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from restorert.errors import DeviceMemoryError, RestorertError
from restorert.pictures.files import MAX_PIXELS, read_image
from restorert.pictures.padding import pad
from restorert.pictures.picture import Picture
from restorert.pictures.pixels import to_unit_range, with_channels
from restorert.spec import padded_size

if TYPE_CHECKING:
    from restorert.networks.degradation_classifier import DegradationClassifier


def classify_picture(picture: Picture, classifier: DegradationClassifier) -> dict[str, float]:
    """The probability of each degradation, in [0, 1], the most likely first.

    The whole picture goes in, padded as an engine of the encoder pads it. Grey is replicated to
    three channels; alpha is ignored.

    Raises:
        DeviceMemoryError: not enough memory for a picture of this size.
        RestorertError: scores that are not finite.
    """
    import torch

    from restorert.runtime.engine import is_out_of_memory

    rows, columns = picture.pixels.shape[:2]
    spec, smallest = classifier.encoder.spec, classifier.decoder.config.smallest
    height, width = (padded_size(size, spec.size_multiple, smallest) for size in (rows, columns))
    device = next(classifier.parameters()).device
    try:
        planes = with_channels(to_unit_range(picture.pixels), 3)
        image = torch.from_numpy(pad(planes[None], height, width, spec.padding_mode)).to(device)
        with torch.no_grad():
            scores = classifier(image.contiguous())[0]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(
            f"not enough memory to classify {columns}x{rows} pixels; crop the picture"
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
