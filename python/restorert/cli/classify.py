"""restorert classify."""

from __future__ import annotations

import argparse
from typing import Any

from restorert.cli.options import path
from restorert.errors import InputError
from restorert.terminal import console


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    classify = commands.add_parser("classify", help="name the degradation of a picture")
    classify.add_argument("source", type=path, help="picture")
    classify.add_argument(
        "--model", metavar="NAME", help="the encoder's variant; default: by its file"
    )
    classify.add_argument(
        "--weights",
        type=path,
        nargs=2,
        required=True,
        metavar=("ENCODER", "CLASSIFIER"),
        help="DCPT's two checkpoints: restoration network and degradation classifier",
    )
    classify.add_argument("--classes", metavar="A,B,...", help="names of the classes, in order")
    classify.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the probability of each class, the most likely first."""
    import torch

    from restorert import classify_image, load_classifier
    from restorert.networks.degradation_classifier import CLASSES
    from restorert.weights import shipped_weights

    decoder = options.weights[1]
    if not decoder.exists() and str(decoder) in shipped_weights():
        raise InputError(
            f"{decoder} is not a degradation classifier: give ENCODER, then CLASSIFIER"
        )
    named = [name.strip() for name in options.classes.split(",")] if options.classes else None
    classifier = load_classifier(*options.weights, name=options.model, classes=named)
    if torch.cuda.is_available():
        classifier = classifier.cuda()
    shares = classify_image(options.source, classifier)
    if named is None and len(shares) in CLASSES:
        console().print(
            "note: the authors do not publish the order of the classes; these names follow "
            + ("their test options" if len(shares) == 5 else "the paper's table 16")
            + "; set others with --classes A,B,..."
        )
    for name, share in shares.items():
        print(f"{share:.4f} {name}")
    return 0
