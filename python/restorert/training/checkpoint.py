"""The file that holds a training run, and the export of its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from restorert.errors import CheckpointError
from restorert.files import remove_remains, replace_atomically
from restorert.networks import create_network
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.training.int8 import FakeQuantized
from restorert.training.objective import with_decoder
from restorert.training.recipes import QuantizedLayers, Recipe
from restorert.weights import save_network
from restorert.weights.load import not_finite_tensor

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1

MISFITS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)
"""What torch raises of a state that does not belong to a module."""


def write_run(path: Path, recipe: Recipe, step: int, state: Mapping[str, Any]) -> None:
    """Replace a run's checkpoint as a whole: a crash leaves the old one.

    Args:
        path: `CHECKPOINT` in the run's folder.
        recipe: of the run.
        step: steps done.
        state: the state dicts "module", "mean" (of the weights) and "optimizer".

    Raises:
        CheckpointError: it cannot be written.
    """
    described = json.dumps(recipe.describe())
    try:
        remove_remains(path)
        with replace_atomically(path) as temporary:
            torch.save({"format": _FORMAT, "recipe": described, "step": step, **state}, temporary)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: cannot be written ({reason})") from None


def read_run(path: Path) -> dict[str, Any]:
    """What `write_run` wrote, "recipe" as `Recipe.describe` gives it; on the CPU.

    Raises:
        CheckpointError: no such file, or it cannot be read or is something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["recipe"] = json.loads(state["recipe"])
        state["step"] = int(state["step"])
        if state["format"] != _FORMAT:
            raise ValueError(f"format {state['format']}")
        if not isinstance(state["recipe"], dict):
            raise TypeError("no recipe")
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: holds no run; name a run's folder") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise CheckpointError(f"{path}: not enough memory to read it") from None
    except Exception:  # whatever a broken file makes torch say
        raise damaged(path) from None
    return dict(state)


def damaged(path: Path) -> CheckpointError:
    """The error of a file that is no run's checkpoint."""
    size = path.stat().st_size if path.exists() else 0
    what = "is not the checkpoint of a training run, or is damaged" if size else "is an empty file"
    return CheckpointError(f"{path} {what}; remove it to start afresh")


def export_run(
    out: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    half: bool = True,
    recipe: str | None = None,
) -> tuple[list[Path], int]:
    """Write the mean weights of a run, finished or not, as safetensors.

    Args:
        out: the run's folder.
        path: the network's file; DCPT's decoder goes beside it, as ``<stem>-decoder``.
        half: float16; `load_network` widens it again.
        recipe: refuse a run of any other recipe.

    Returns:
        The files written, and the steps that were done.

    Raises:
        CheckpointError: the folder's checkpoint cannot be read or is of another recipe than
            ``recipe``; weights that are not finite; or a file cannot be written.
    """
    checkpoint = Path(out) / CHECKPOINT
    state = read_run(checkpoint)
    said = state["recipe"]
    if recipe is not None and said.get("name") != recipe:
        raise CheckpointError(
            f"{out}: holds a run of recipe {said.get('name')}, not of {recipe}; name that recipe, "
            "or another folder"
        )
    try:
        network = create_network(said["network"], **said["config"])
        module = (
            FakeQuantized(network, QuantizedLayers(**said["layers"]))
            if said.get("layers")
            else with_decoder(network, said["objective"], len(said["degradations"]))
        )
        module.load_state_dict(state["mean"], strict=True)
        if isinstance(module, FakeQuantized):
            module = network = module.trained()
    except MISFITS:
        raise damaged(checkpoint) from None
    if half:
        module = module.half()
    broken = not_finite_tensor(module.state_dict())
    if broken is not None:
        raise CheckpointError(
            f"{out}: {broken} is not finite{' in float16' if half else ''}; train with a lower "
            "learning rate"
        )
    path = Path(path)
    save_network(network, path)
    if not isinstance(module, DegradationClassifier):
        return [path], state["step"]
    decoder = path.with_name(f"{path.stem}-decoder{path.suffix}")
    tensors = {name: value.contiguous() for name, value in module.decoder.state_dict().items()}
    with replace_atomically(decoder) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return [path, decoder], state["step"]
