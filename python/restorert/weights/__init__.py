"""Checkpoints: reading them safely, recognising their network, and writing them."""

from restorert.networks.module import CheckpointSource
from restorert.weights.checkpoint import Checkpoint, read_checkpoint
from restorert.weights.classifier import load_classifier
from restorert.weights.load import load_network, save_network, weights_hash
from restorert.weights.shipped import shipped_calibrations, shipped_weights

__all__ = [
    "Checkpoint",
    "CheckpointSource",
    "load_classifier",
    "load_network",
    "read_checkpoint",
    "save_network",
    "shipped_calibrations",
    "shipped_weights",
    "weights_hash",
]
