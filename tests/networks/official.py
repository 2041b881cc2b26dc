"""Networks against figures of the authors' own code, recorded by scripts/official_figures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from torch import nn

import restorert as rr
from restorert.networks.counts import count_parameters

DATA = Path(__file__).parent / "data"
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/official_figures"))

from seeded import figures, load_seeded, seeded_picture, widen_norms  # noqa: E402

__all__ = [
    "DATA",
    "assert_equals_official",
    "load_seeded",
    "seeded_picture",
    "variants_recorded",
    "widen_norms",
]


def variants_recorded(family: str) -> list[str]:
    """Names of the variants that the family's figures hold."""
    with np.load(DATA / f"{family}_official.npz") as recorded:
        return sorted({key.split("/")[0] for key in recorded})


def assert_equals_official(
    family: str,
    name: str,
    tolerance: float = 1e-5,
    gain: float = 1.0,
    adjust: Callable[[nn.Module], None] | None = None,
    sizes: Collection[str] | None = None,
) -> None:
    """The variant ``name`` has the authors' parameters and, stage by stage, their outputs.

    Args:
        family: of the file of figures.
        name: a variant that it holds.
        tolerance: of single pixels, in units of the stage's largest output, since sums in another
            order err by that; means and deviations get a tenth of it.
        gain: of the seeded weights, as they were recorded.
        adjust: changes the network, as the figures were recorded with.
        sizes: those to compare, HxW; None is all that were recorded.
    """
    with np.load(DATA / f"{family}_official.npz") as recorded:
        official = {k: v for k, v in recorded.items() if k.split("/")[0] == name}
    net = load_seeded(rr.create_network(name), gain=gain)
    if adjust is not None:
        adjust(net)
    assert sorted(net.state_dict()) == official[f"{name}/names"].tolist()
    assert count_parameters(net) == int(official[f"{name}/parameters"])
    recorded_sizes = sorted({key.split("/")[1] for key in official if key.count("/") == 3})
    assert recorded_sizes
    assert set(sizes or ()) <= set(recorded_sizes)
    for size in sizes or recorded_sizes:
        height, width = map(int, size.split("x"))
        stages = len({k.split("/")[2] for k in official if k.startswith(f"{name}/{size}/")})
        picture = seeded_picture(height, width, channels=net.spec.in_channels)
        with torch.no_grad():
            outputs = net.stages(picture)[-stages:]
        assert len(outputs) == stages
        for stage, output in enumerate(outputs, 1):
            found = figures(output)
            largest = float(np.abs(official[f"{name}/{size}/{stage}/samples"]).max())
            for what, share in (("samples", 1.0), ("mean", 0.1), ("std", 0.1)):
                np.testing.assert_allclose(
                    found[what],
                    official[f"{name}/{size}/{stage}/{what}"],
                    rtol=0,
                    atol=tolerance * share * largest,
                    err_msg=f"{name} at {size}, stage {stage}, {what}",
                )
