"""Record what the authors' own code computes, as figures that the tests compare with.

    python scripts/official_figures.py hinet CHECKOUT_OF_MEGVII_HINET

The authors' code is read from a checkout that the caller has; none of it is kept. Weights and
input come from numpy's PCG64, which gives the same numbers on every machine and version. Kept are
the outputs at 1024 pixels and each channel's mean and standard deviation.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SIZES = ((256, 256), (208, 336), (48, 16))
HINET = {
    "hinet": {"wf": 64, "hin_position_left": 0, "hin_position_right": 4},
    "hinet-gopro": {"wf": 64, "hin_position_left": 3, "hin_position_right": 4},
    "hinet-sidd-0.5x": {"wf": 32, "hin_position_left": 0, "hin_position_right": 4},
}


def seeded_state_dict(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Normal weights of variance 1 / fan-in, biases and norms' offsets of deviation 0.1."""
    generator = np.random.Generator(np.random.PCG64(seed))
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = generator.standard_normal(shape, dtype=np.float32)
        if len(shape) > 1:
            values *= 1.0 / np.sqrt(np.prod(shape[1:]))
        else:
            values *= 0.1
            if name.endswith("norm.weight"):
                values += 1.0
        state[name] = torch.from_numpy(np.asarray(values))
    return state


def seeded_picture(height: int, width: int, batch: int = 1, seed: int = 1) -> Tensor:
    """[batch, 3, height, width] in [0, 1]."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.random((batch, 3, height, width), dtype=np.float32))


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


def _import(path: Path) -> object:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def record_hinet(checkout: Path) -> dict[str, np.ndarray]:
    """Both stages' outputs of every distinct variant at every size."""
    module = _import(checkout / "basicsr/models/archs/hinet_arch.py")
    kept: dict[str, np.ndarray] = {}
    for name, arguments in HINET.items():
        network: nn.Module = module.HINet(**arguments)  # type: ignore[attr-defined]
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict(seeded_state_dict(shapes))
        network.eval()
        kept[f"{name}/parameters"] = np.array(sum(p.numel() for p in network.parameters()))
        kept[f"{name}/names"] = np.array(sorted(shapes))
        for height, width in SIZES:
            with torch.no_grad():
                stages = network(seeded_picture(height, width))
            for stage, output in enumerate(stages, 1):
                for what, values in figures(output).items():
                    kept[f"{name}/{height}x{width}/{stage}/{what}"] = values
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=("hinet",))
    parser.add_argument("checkout", type=Path)
    options = parser.parse_args()
    target = Path(__file__).parents[1] / f"tests/networks/data/{options.network}_official.npz"
    np.savez_compressed(target, **{"hinet": record_hinet}[options.network](options.checkout))
    print(f"{target}: {target.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
