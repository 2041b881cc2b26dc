"""Weights and pictures that are the same on every machine, and what is kept of an output.

Both come from numpy's PCG64, which gives the same numbers in every version.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

# Square, not square, and an awkward small one; H, W.
SIZES = ((256, 256), (208, 336), (48, 16))


def seeded_state_dict(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, gain: float = 1.0
) -> dict[str, Tensor]:
    """Normal weights of variance gain^2 / fan-in, biases and norms' offsets of deviation 0.1.

    A gain below 1 keeps the outputs of deep networks without norms at the order of 1. Vectors
    whose name ends with ``norm.weight`` or ``.body.weight`` are around 1; tensors of more than four
    dimensions, which are features and no weights, have variance 1.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = generator.standard_normal(shape, dtype=np.float32)
        if 1 < len(shape) < 5:
            values *= gain / np.sqrt(np.prod(shape[1:]))
        elif len(shape) < 2:
            values *= 0.1
            if name.endswith(("norm.weight", ".body.weight")):
                values += 1.0
        state[name] = torch.from_numpy(np.asarray(values))
    return state


def load_seeded(network: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Give ``network`` the weights of `seeded_state_dict`; returns it in eval mode."""
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict(seeded_state_dict(shapes, seed, gain))
    return network.eval()


def widen_norms(network: nn.Module) -> None:
    """Add 1 to the layer norms' weights that are around 0 because of their name.

    Else what follows them is small: attention that is nearly uniform hides mistakes.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm) and not name.endswith("norm"):
            module.weight.data += 1.0


def seeded_picture(
    height: int, width: int, batch: int = 1, seed: int = 1, channels: int = 3
) -> Tensor:
    """[batch, channels, height, width] in [0, 1]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.random((batch, channels, height, width), dtype=np.float32))


def figures(output: Tensor, seed: int = 2) -> dict[str, np.ndarray]:
    """An output's values at 1024 seeded pixels, and its channels' means and deviations."""
    pixels = output[0].reshape(output.shape[1], -1).double().numpy()
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = generator.integers(0, pixels.shape[1], 1024)
    return {
        "samples": pixels[:, chosen].astype(np.float32),
        "mean": pixels.mean(1),
        "std": pixels.std(1),
    }


def record(
    variant: str,
    network: nn.Module,
    stages: Iterable[int] = (0,),
    sizes: Iterable[tuple[int, int]] = SIZES,
    channels: int = 3,
    gain: float = 1.0,
    adjust: Callable[[nn.Module], None] | None = None,
) -> dict[str, np.ndarray]:
    """What the tests compare with, of an official network under seeded weights.

    Keys are ``variant/parameters``, ``variant/names`` (of the state dict, sorted) and
    ``variant/HxW/stage/{samples,mean,std}``, with stage 1 for the first of ``stages``.

    Args:
        variant: our name of it.
        network: maps a picture to a picture, or to a sequence of them.
        stages: indices into that sequence, from the first computed to the final picture.
        sizes: H, W of the pictures.
        channels: of the pictures.
        gain: of the seeded weights.
        adjust: changes the seeded weights before the network runs.
    """
    load_seeded(network, gain=gain)
    if adjust is not None:
        adjust(network)
    state = network.state_dict()
    kept = {
        f"{variant}/parameters": np.array(sum(p.numel() for p in network.parameters())),
        f"{variant}/names": np.array(sorted(state)),
    }
    for height, width in sizes:
        with torch.no_grad():
            outputs = network(seeded_picture(height, width, channels=channels))
        if isinstance(outputs, Tensor):
            outputs = (outputs,)
        for number, stage in enumerate(stages, 1):
            for what, values in figures(outputs[stage]).items():
                kept[f"{variant}/{height}x{width}/{number}/{what}"] = values
    return kept


def import_file(path: Path, name: str | None = None) -> ModuleType:
    """Import one Python file, whatever package it belongs to."""
    specification = importlib.util.spec_from_file_location(name or path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
