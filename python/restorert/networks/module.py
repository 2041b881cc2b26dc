"""The base class of every network, its exact rewrites, and what a family of networks is."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from restorert.errors import InputError
from restorert.spec import NetworkSpec

Format = Literal["torch-zip", "torch-legacy", "safetensors", "tensorflow"]


@dataclass(frozen=True)
class CheckpointSource:
    """The origin of a checkpoint's tensors.

    Attributes:
        path: the absolute path; for a TensorFlow checkpoint that of its .index file.
        format: the file's format, recognised by its content.
        key: the keys that the state dict was nested under, joined by dots; "" at the top level. For
            a TensorFlow checkpoint the scope that all variables share.
        metadata: of a safetensors file.
        sha256: `restorert.weights.weights_hash` of the loaded network; "" in what
            `read_checkpoint` returns.
    """

    path: Path
    format: Format
    key: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class Rewrite:
    """An exact change of a network's modules that saves memory traffic or arithmetic.

    Attributes:
        name: what `RestorationNetwork.deploy` and the benchmarks call it.
        identity: why the function stays the same, as a formula.
        apply: changes the network in place; returns at how many places.
        runners: those it pays on, by measurement; None for all.
    """

    name: str
    identity: str
    apply: Callable[[Any], int]
    runners: frozenset[str] | None = None


class RestorationNetwork(nn.Module):
    """A module that maps [N, C, H, W] floats in [0, 1] to the restored pictures, not clamped.

    Attributes:
        spec: which variant it is, and what its users must know of it.
        checkpoint: where its weights come from; None for seeded random weights.
        seeded: of `create_network`, see `restorert.networks.seed_of`.
        rewrites: what `deploy` does to a network of this class, in order.
        features_channels_last: whether `feature_modules` give [N, h, w, C].
        deployed: names of the rewrites that were applied; empty in the authors' layout.
    """

    spec: NetworkSpec
    checkpoint: CheckpointSource | None = None
    seeded: tuple[int, object] | None = None
    rewrites: ClassVar[tuple[Rewrite, ...]] = ()
    features_channels_last: ClassVar[bool] = False
    deployed: tuple[str, ...] = ()

    def deploy(
        self, runner: str = "torch", *, only: Collection[str] | None = None
    ) -> RestorationNetwork:
        """A copy in deploy form: the same function, fewer bytes and MACs, for inference only.

        Its state dict is no longer the authors'; keep the network to save or train it.

        Args:
            runner: what will run it: a runner's name, or a TensorRT module's.
            only: names of the rewrites to apply, on whatever runner; None for all that pay there.

        Returns:
            The copy; this network itself where it is deployed already or nothing applies.

        Raises:
            InputError: a name in ``only`` that the network does not have.
        """
        known = [rewrite.name for rewrite in self.rewrites]
        for name in only or ():
            if name not in known:
                raise InputError(f"no rewrite {name!r}; {self.spec.name} has {', '.join(known)}")
        chosen = [
            rewrite
            for rewrite in self.rewrites
            if (
                rewrite.name in only
                if only is not None
                else rewrite.runners is None or runner in rewrite.runners
            )
        ]
        if self.deployed or not chosen:
            return self
        deployed = copy.deepcopy(self).eval()
        deployed.deployed = tuple(rewrite.name for rewrite in chosen if rewrite.apply(deployed) > 0)
        return deployed.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Restore a batch.

        Args:
            image: [N, C, H, W] floats in [0, 1]; H and W multiples of ``spec.size_multiple``. Any
                float dtype: features take the weights' dtype, the picture keeps its own, so that
                the residual is added at the input's precision.

        Returns:
            The restored picture, [N, ``spec.out_channels``, H, W] of the dtype of ``image``, not
            clamped.
        """
        return self.stages(image)[-1]

    def stages(self, image: Tensor) -> list[Tensor]:
        """The pictures of all stages or scales, in order of computation, the restored one last.

        A network of one stage overrides `forward` instead.
        """
        return [self(image)]

    def feature_modules(self) -> list[str]:
        """Names of the modules whose outputs DCPT's degradation classifier reads.

        In the order in which they are computed: [N, C, h, w], or tokens [N, h * w, C] of the
        picture's size. Empty where the authors classify by no features of this network.
        """
        return []


class RepeatedBlock(nn.Module):
    """A module that a network has many of: the exporter traces one of each kind.

    It maps [N, C, H, W] to the same shape and dtype, for every N, H and W, takes nothing else, and
    what it computes follows from its tensors and its submodules' plain attributes.
    """


def named(**modules: nn.Module) -> nn.Sequential:
    """Modules that run one after the other, under their names in the authors' checkpoints."""
    return nn.Sequential(OrderedDict(modules))


@dataclass(frozen=True)
class NetworkFamily:
    """A network architecture: how to build it and how to recognise its checkpoints."""

    name: str
    variants: Mapping[str, NetworkSpec]
    build: Callable[[Any], RestorationNetwork]
    """Config -> module with torch's default initialisation."""
    read_config: Callable[[Mapping[str, Tensor]], Any | None]
    """Canonical state dict with all ``marks`` -> config, or None where it is another family's."""
    small: Mapping[str, Any]
    """Fields of the config that make a miniature of any variant: all its parts, few weights."""
    marks: tuple[str, ...] = ()
    """Weights of convolutions that every checkpoint of the family has, of four dimensions."""
    unseen: tuple[str, ...] = ()
    """Fields of the config that no tensor shows, taken from the variant a checkpoint is of."""
    tensors_for: Callable[[Mapping[str, Tensor], Any], Mapping[str, Tensor]] | None = None
    """(canonical state dict, config) -> the tensors that a variant of this config takes of a
    checkpoint that holds more, such as the first stages of a network of several."""
    derived_tensors: frozenset[str] = frozenset()
    """Last parts of names of tensors that the authors' checkpoints hold although they follow from
    the config: they are neither read nor kept."""

    def config_from_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any | None:
        """The config of a canonical state dict, or None where it is not of this family."""
        if any(name not in state_dict or state_dict[name].ndim != 4 for name in self.marks):
            return None
        try:
            return self.read_config(state_dict)
        except InputError:
            return None

    def same_tensors(self, one: Any, other: Any) -> bool:
        """Whether two configs differ at most in what no tensor shows."""
        return all(
            getattr(one, size.name) == getattr(other, size.name)
            for size in fields(one)
            if size.name not in self.unseen
        )
