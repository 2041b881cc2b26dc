"""The registry of networks: `create_network`, `list_networks`, and the list of families."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restorert.errors import CheckpointError, InputError, UnknownNetworkError
from restorert.networks import hinet, memorynet, mprnet, nafnet, promptir, restormer, srn, swinir
from restorert.networks.module import NetworkFamily, RestorationNetwork
from restorert.spec import NetworkSpec

# Adding a network: one file beside this one, one line here, one recipe in engines/.
FAMILIES: tuple[NetworkFamily, ...] = (
    hinet.FAMILY,
    mprnet.FAMILY,
    memorynet.FAMILY,
    srn.FAMILY,
    nafnet.FAMILY,
    restormer.FAMILY,
    promptir.FAMILY,
    swinir.FAMILY,
)


def list_networks() -> list[str]:
    """Names that `create_network` takes, in the order of the registry."""
    return [name for family in FAMILIES for name in family.variants]


def _family_of(name: str) -> NetworkFamily:
    for family in FAMILIES:
        if name in family.variants:
            return family
    near = difflib.get_close_matches(name, list_networks(), n=3, cutoff=0.4) or list_networks()
    raise UnknownNetworkError(f"unknown network {name!r}; did you mean {', '.join(near)}?")


def network_spec(name: str) -> NetworkSpec:
    """The spec of the variant ``name``.

    Raises:
        UnknownNetworkError: no such name; the message lists the nearest ones.
    """
    return _family_of(name).variants[name]


def _build(family: NetworkFamily, spec: NetworkSpec) -> RestorationNetwork:
    network = family.build(spec.config)
    network.spec = spec
    network.eval().requires_grad_(False)
    return network


def create_network(name: str, *, seed: int = 0, **config: Any) -> RestorationNetwork:
    """A network with seeded random weights, in eval mode, float32, on the CPU.

    Args:
        name: one of `list_networks()`.
        seed: weights are torch's default initialisation under this seed; the global random state
            is left as it was.
        config: fields of the family's config to change, e.g. ``width=16``.

    Returns:
        A module that maps [N, C, H, W] floats in [0, 1] to the restored picture, not clamped, with
        its `NetworkSpec` in ``.spec``. H and W must be multiples of ``spec.size_multiple``.

    Raises:
        UnknownNetworkError: no such name.
        InputError: a config field that the family does not have, or a value it cannot take.
    """
    family = _family_of(name)
    spec = family.variants[name]
    if config:
        fields = [f.name for f in dataclasses.fields(spec.config)]
        unknown = [key for key in config if key not in fields]
        if unknown:
            raise InputError(
                f"{name} has no config field {unknown[0]!r}; it has {', '.join(fields)}"
            )
        spec = dataclasses.replace(spec, config=dataclasses.replace(spec.config, **config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(family, spec)
    network.seeded = (seed, _state_of(network))
    return network


def seed_of(network: RestorationNetwork) -> int | None:
    """The seed of `create_network` whose weights ``network`` still has; None where there is none.

    Told without drawing them again: torch counts the changes of each tensor in place.
    """
    if network.seeded is None or network.seeded[1] != _state_of(network):
        return None
    return network.seeded[0]


def _state_of(network: RestorationNetwork) -> list[tuple[str, int, int, torch.dtype]]:
    tensors = network.state_dict(keep_vars=True)
    return [
        (name, -1 if t.is_inference() else t._version, t.data_ptr(), t.dtype)
        for name, t in tensors.items()
    ]


def network_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    name: str | None = None,
    hint: str = "",
    unseen: Mapping[str, Any] | None = None,
) -> RestorationNetwork | None:
    """The network whose tensors these are, or None where no family knows them.

    Args:
        state_dict: canonical names (the authors' own, without wrappers such as ``module.``).
        name: the variant, where the caller knows it (of a checkpoint that holds more stages than
            the variant has, the first are taken); else the first variant of equal config whose
            name's last part stands in ``hint``, else the first of equal config, else the one that
            shares the most fields of the config.
        hint: usually the file's name: published variants that differ in their training data only
            (hinet-gopro and hinet-reds) cannot be told apart by their tensors.
        unseen: fields of the config that no tensor shows, where they are not the variant's.

    Raises:
        CheckpointError: a family is recognised, but tensors are missing, extra or of other shapes.
    """
    for family in FAMILIES:
        if name is not None and name not in family.variants:
            continue
        config = family.config_from_state_dict(state_dict)
        if config is None:
            continue
        if name is not None and family.tensors_for is not None:
            state_dict = family.tensors_for(state_dict, family.variants[name].config)
            config = family.config_from_state_dict(state_dict)
            if config is None:
                continue
        equal = [s for s in family.variants.values() if family.same_tensors(config, s.config)]
        hinted = [spec for spec in equal if _hints_at(hint, spec)]
        if name is not None:
            base = family.variants[name]
        else:
            base = (hinted or equal or [_nearest(family, config)])[0]
        if name is not None or equal:
            known = {field: getattr(base.config, field) for field in family.unseen}
            known |= {k: v for k, v in (unseen or {}).items() if k in known}
            config = dataclasses.replace(config, **known)
        spec = dataclasses.replace(base, config=config)
        state_dict = {
            key: tensor
            for key, tensor in state_dict.items()
            if key.rpartition(".")[2] not in family.derived_tensors
        }
        # On the meta device first: a file may name sizes that no machine has memory for.
        with torch.device("meta"):
            wrong = misfit(family.build(config), state_dict)
        if wrong:
            raise CheckpointError(f"{family.name} tensors that do not fit together: {wrong}")
        with torch.random.fork_rng(devices=[]):
            network = _build(family, spec)
        network.load_state_dict(dict(state_dict), strict=True)
        return network
    return None


def _nearest(family: NetworkFamily, config: Any) -> NetworkSpec:
    """The first of the variants that share the most fields with ``config``."""

    def shared(spec: NetworkSpec) -> int:
        fields = dataclasses.fields(config)
        return sum(getattr(spec.config, f.name) == getattr(config, f.name) for f in fields)

    return max(family.variants.values(), key=shared)


def _hints_at(hint: str, spec: NetworkSpec) -> bool:
    """Whether ``hint``, usually a file's name, speaks of the variant."""
    said = hint.lower().replace("_", "-")
    marks = (spec.name.partition("-")[2], spec.file_hint)
    return any(mark and mark.lower().replace("_", "-") in said for mark in marks)


def misfit(network: nn.Module, state_dict: Mapping[str, Tensor]) -> str:
    """Which tensors are missing, extra or of another shape or kind, in words; "" where none is."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in state_dict]
    extra = [name for name in state_dict if name not in expected]
    other = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state_dict
        and (
            state_dict[name].shape != tensor.shape
            or state_dict[name].is_floating_point() != tensor.is_floating_point()
        )
    ]
    found = (("missing", missing), ("not of this network", extra), ("of another shape", other))
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in found
        if names
    )
