"""What a recipe trains, and what each step minimises."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from restorert.errors import CheckpointError, InputError
from restorert.networks import create_network
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.networks.module import RestorationNetwork
from restorert.psnr import psnr
from restorert.training.dcpt import classifier_for, dcpt_losses
from restorert.training.int8 import FakeQuantized
from restorert.training.losses import euclidean_multiscale_loss, hinet_loss, mprnet_loss
from restorert.training.recipes import Recipe
from restorert.weights import load_network

_LOSSES: dict[str, Callable[[Sequence[Tensor], Tensor], Tensor]] = {
    "psnr": hinet_loss,
    "charbonnier-edge": mprnet_loss,
    "multiscale": euclidean_multiscale_loss,
}
# PSNR in dB of a picture that its degradation left as it is, which would make a mean infinite.
_BEST = 120.0


def build_module(recipe: Recipe, initial: str | os.PathLike[str] | None = None) -> nn.Module:
    """The network or classifier that the recipe trains.

    Args:
        recipe: of the run.
        initial: a checkpoint of the network; None for seeded random weights.

    Raises:
        CheckpointError: ``initial`` cannot be read, or is a network of other sizes.
    """
    network = create_network(recipe.network, seed=recipe.seed, **recipe.config)
    if initial is not None:
        given = load_network(initial, name=recipe.network)
        if given.spec.config != network.spec.config:
            raise CheckpointError(
                f"{initial}: its {recipe.network} has other sizes than the one that recipe "
                f"{recipe.name} trains"
            )
        network.load_state_dict(given.state_dict())
    else:
        for name in recipe.zeroed:
            for parameter in network.get_submodule(name).parameters():
                parameter.data.zero_()
    if recipe.layers is not None:
        return FakeQuantized(network, recipe.layers)
    return with_decoder(network, recipe.objective, len(recipe.degradations), recipe.seed)


def with_decoder(
    network: RestorationNetwork, objective: str, classes: int, seed: int = 0
) -> nn.Module:
    """The network and, where the objective is "dcpt", a decoder of ``classes`` degradations."""
    if objective != "dcpt":
        return network
    return classifier_for(network, [f"class {number}" for number in range(classes)], seed=seed)


def loss_and_quality(
    objective: str, module: nn.Module, degraded: Tensor, clean: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """The loss to minimise, and how good the module is already.

    Args:
        objective: see `Recipe`.
        module: of `build_module`, in training mode.
        degraded, clean: [N, 3, H, W], float32.
        labels: [N] int64, which degradation each is of.

    Returns:
        The loss, and the mean PSNR in dB of the restored pictures, not clamped, or for a classifier
        the share of degradations named correctly.

    Raises:
        InputError: no such objective.
    """
    if isinstance(module, FakeQuantized):
        loss, restored = module.loss(degraded, clean)
        return loss, mean_psnr(restored.detach(), clean)
    if isinstance(module, DegradationClassifier):
        parts = dcpt_losses(module, clean, degraded, labels)
        right = (parts["scores"].detach().argmax(dim=1) == labels).float().mean()
        return parts["pixel"] + parts["class"], float(right)
    if objective not in _LOSSES:
        raise InputError(f"no objective {objective!r}; there are {', '.join([*_LOSSES, 'dcpt'])}")
    assert isinstance(module, RestorationNetwork)
    pictures = module.stages(degraded)
    restored = pictures[-1].detach()
    if objective != "multiscale":
        pictures = [picture for picture in pictures if picture.shape == clean.shape]
    return _LOSSES[objective](pictures, clean), mean_psnr(restored, clean)


def mean_psnr(restored: Tensor, clean: Tensor) -> float:
    """The mean PSNR in dB over the pictures of a batch [N, C, H, W] in [0, 1]."""
    errors = (restored.float() - clean).square().mean(dim=(1, 2, 3)).tolist()
    return sum(min(psnr(error), _BEST) for error in errors) / len(errors)
