"""Training: the papers' objectives, synthetic degradations, and the recipe of the shipped weights.

``python -m restorert.training --recipe hinet-tiny --images DIR`` trains; see docs/training.md.
"""

from restorert.training.checkpoint import export_run
from restorert.training.data import Batch, Pairs, read_photographs
from restorert.training.dcpt import accuracy, classifier_for, dcpt_losses
from restorert.training.int8 import FakeQuantized, read_quantized_layers, write_int8
from restorert.training.recipes import (
    RECIPES,
    Phase,
    QuantizedLayers,
    Recipe,
    int8_recipe,
    recipe,
)
from restorert.training.trainer import Report, Trainer

__all__ = [
    "RECIPES",
    "Batch",
    "FakeQuantized",
    "Pairs",
    "Phase",
    "QuantizedLayers",
    "Recipe",
    "Report",
    "Trainer",
    "accuracy",
    "classifier_for",
    "dcpt_losses",
    "export_run",
    "int8_recipe",
    "read_photographs",
    "read_quantized_layers",
    "recipe",
    "write_int8",
]
