"""Checkpoint file -> network, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from restorert.errors import CheckpointError, InputError, RestorertError, printable, reason_of
from restorert.files import writing
from restorert.networks import (
    FAMILIES,
    RestorationNetwork,
    list_networks,
    network_from_state_dict,
    network_spec,
)
from restorert.weights.checkpoint import Checkpoint, read_checkpoint
from restorert.weights.shipped import shipped_weights

_NETWORK_KEY = "restorert.network"
_UNSEEN_KEY = "restorert.config"


def load_network(path: str | os.PathLike[str], *, name: str | None = None) -> RestorationNetwork:
    """Load the network of a checkpoint; family, variant and sizes follow from its tensors.

    Published variants of equal sizes (``hinet-gopro`` and ``hinet-reds``) are distinguished by
    ``name``, else by the metadata that `save_network` writes, else by the file's name.

    Args:
        path: a file for `read_checkpoint` or, if there is no such file, the name of a network whose
            weights come with the package (`shipped_weights`: "hinet-tiny").
        name: the variant, one of `list_networks()`. Sizes that no published variant has are
            accepted under any name of the family.

    Returns:
        A module in eval mode, float32, on the CPU, with its `NetworkSpec` in ``.spec`` and a
        `CheckpointSource` in ``.checkpoint``.

    Raises:
        UnknownNetworkError: no network is called ``name``.
        CheckpointError: the file cannot be read; its tensors belong to no known network; some are
            missing, extra, of the wrong shape or not finite; or they belong to a variant other than
            ``name``.
    """
    if name is not None:
        network_spec(name)
    if not Path(path).exists():
        path = shipped_weights().get(os.fspath(path), path)
    checkpoint = read_checkpoint(path)
    noted = checkpoint.source.metadata.get(_NETWORK_KEY)
    base = name or (noted if noted in list_networks() else None)
    try:
        unseen = json.loads(checkpoint.source.metadata.get(_UNSEEN_KEY, "{}")) if not name else {}
        network = None
        if base is not None:
            network = network_from_state_dict(checkpoint.tensors, name=base, unseen=unseen)
        if network is None:
            network = network_from_state_dict(checkpoint.tensors, hint=Path(path).stem)
        if network is None:
            raise CheckpointError(_unknown(checkpoint))
        if name is not None:
            _check_name(name, network)
        check_finite(checkpoint.tensors)
    except RestorertError as error:
        # The names of tensors come from the file and may contain anything.
        raise CheckpointError(f"{path}: {printable(str(error))}") from None
    except Exception as error:  # malicious shapes fail anywhere in the families' code
        raise CheckpointError(
            f"{path}: no network can be built from its tensors ({reason_of(error)})"
        ) from None
    network.checkpoint = dataclasses.replace(checkpoint.source, sha256=weights_hash(network))
    return network


def _check_name(name: str, network: RestorationNetwork) -> None:
    """Raise CheckpointError if the sizes are those of other published variants than ``name``."""
    asked = network_spec(name)
    found = network.spec
    fitting = [
        other
        for family in FAMILIES
        if family.name == found.family
        for other, spec in family.variants.items()
        if family.same_tensors(found.config, spec.config)
    ]
    if asked.family != found.family or (fitting and name not in fitting):
        raise CheckpointError(
            f"holds no {name}: its tensors are those of {' or '.join(fitting) or found.family}"
        )


def not_finite_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with NaN or infinity, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            return name
    return None


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Reject tensors with NaN or infinity: such weights cannot produce a picture.

    Raises:
        CheckpointError: names the first one.
    """
    name = not_finite_tensor(tensors)
    if name is not None:
        raise CheckpointError(
            f"{name} holds values that are not finite: the training diverged or the file is "
            "damaged; take an earlier checkpoint or download it again"
        )


def _unknown(checkpoint: Checkpoint) -> str:
    """The tensors found, and the family that shares the most names with them."""
    found = list(checkpoint.tensors)
    shared: dict[str, int] = {}
    for family in FAMILIES:
        with torch.device("meta"):
            names = family.build(next(iter(family.variants.values())).config).state_dict().keys()
        shared[family.name] = len(names & set(found))
    nearest = max(shared, key=lambda family: shared[family])
    near = (
        f"the nearest is {nearest}, with {shared[nearest]} names in common"
        if shared[nearest]
        else f"none of their names is known; families: {', '.join(shared)}"
    )
    return (
        f"{len(found)} tensors of no network that restorert knows "
        f"(first {', '.join(found[:3])}); {near}"
    )


def save_network(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network's weights as safetensors; ``path`` is replaced atomically.

    The metadata has its name and the config fields that cannot be inferred from tensors.

    Tensors keep their dtype; `load_network` widens half precision when it reads them.

    Raises:
        CheckpointError: the file cannot be written; an existing file is untouched.
    """
    # Copies, because safetensors rejects tensors that share memory.
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {"format": "pt"}
    if getattr(network, "deployed", ()):
        raise InputError("a network in deploy form cannot be saved: save the one it was made from")
    spec = getattr(network, "spec", None)
    if spec is not None:
        metadata[_NETWORK_KEY] = spec.name
        family = next(family for family in FAMILIES if family.name == spec.family)
        if family.unseen:
            unseen = {field: getattr(spec.config, field) for field in family.unseen}
            metadata[_UNSEEN_KEY] = json.dumps(unseen)
    with writing(path, CheckpointError) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def weights_hash(module: nn.Module) -> str:
    """Hex SHA-256 over the names, dtypes, shapes and bytes of a module's state dict.

    It does not depend on the order of the tensors, the device or memory formats; a module cast to
    another dtype has another hash.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        # JSON delimits each header, so no two state dicts give the same byte stream.
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(content.data)
    return digest.hexdigest()
