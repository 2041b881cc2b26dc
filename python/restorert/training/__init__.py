"""Training: the papers' objectives, synthetic degradations, and the recipe of the shipped weights.

``python -m restorert.training --recipe hinet-tiny --images DIR`` trains; see docs/training.md.
"""

from restorert.training.checkpoint import export_run
from restorert.training.data import Batch, Pairs, read_photographs
from restorert.training.dcpt import accuracy, classifier_for, dcpt_losses
from restorert.training.recipes import RECIPES, Phase, Recipe, recipe
from restorert.training.trainer import Report, Trainer

__all__ = [
    "RECIPES",
    "Batch",
    "Pairs",
    "Phase",
    "Recipe",
    "Report",
    "Trainer",
    "accuracy",
    "classifier_for",
    "dcpt_losses",
    "export_run",
    "read_photographs",
    "recipe",
]
