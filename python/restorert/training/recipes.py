"""A training run as data: network, degradations, objective, schedule."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from restorert.errors import InputError, RecipeError
from restorert.pictures.degradations import (
    Chain,
    Degradation,
    GaussianNoise,
    Jpeg,
    dcpt_degradations,
    degradation,
)
from restorert.spec import NetworkSpec, padded_size


@dataclass(frozen=True)
class Phase:
    """A part of the training with crops of one size (progressive learning, as Restormer's).

    Attributes:
        until: the share of all steps at which it ends, 0 < until <= 1.
        patch: height and width of the crops in pixels.
        batch: pairs in a step.
    """

    until: float
    patch: int
    batch: int


@dataclass(frozen=True)
class QuantizedLayers:
    """What an INT8 file says of its layers, see `restorert.training.int8`.

    Attributes:
        sources: layer in INT8 -> name of the tensor it reads.
        scales: of these tensors: what one step is worth.
        kept: layers with constant weights that are not in INT8, though they could be.
    """

    sources: Mapping[str, str]
    scales: Mapping[str, float]
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A training run. Equal recipes, photographs and threads give equal weights.

    Attributes:
        name: the value of ``--recipe``.
        network: one of `list_networks()`.
        config: fields of the network's config to change.
        objective: "psnr" (HINet's), "charbonnier-edge" (MPRNet's, MemoryNet's), "multiscale"
            (SRN's), "dcpt" (DCPT's pre-training) or "int8" (fine-tuning for INT8).
        layers: in INT8, for the objective "int8" alone.
        steps: of the optimiser.
        phases: in order; the last ends at 1.
        learning_rate: of Adam, after ``warmup`` steps of linear growth.
        final_rate: the end of the cosine that follows.
        warmup: in steps.
        betas: of Adam.
        gradient_norm: gradients are clipped to this norm; infinity for no clipping.
        ema: decay of the mean of the weights, which is validated and exported; < 1.
        degradations: pairs of share and degradation.
        hardened: whether crops get hard edges, see `Pairs`.
        darkened: share and smallest exposure of darkened crops, see `Pairs`.
        precision: "bf16" runs convolutions in bfloat16 (autocast) on float32 weights.
        zeroed: modules whose weights start at 0, such as the last convolution before the residual
            is added, so that the network starts as the identity.
        seed: of the weights and of the pairs.
        validation_steps: steps between validations.
    """

    name: str
    network: str
    steps: int
    phases: tuple[Phase, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    objective: Literal["psnr", "charbonnier-edge", "multiscale", "dcpt", "int8"] = "psnr"
    layers: QuantizedLayers | None = None
    learning_rate: float = 1e-3
    final_rate: float = 1e-6
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_norm: float = math.inf
    ema: float = 0.999
    degradations: tuple[tuple[float, Degradation], ...] = ((1.0, GaussianNoise()),)
    hardened: bool = True
    darkened: tuple[float, float] = (0.3, 0.5)
    precision: Literal["fp32", "bf16"] = "fp32"
    zeroed: tuple[str, ...] = ()
    seed: int = 0
    validation_steps: int = 1000

    def __post_init__(self) -> None:
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
            raise RecipeError(f"recipe {self.name}: phases must end at increasing shares up to 1")
        for needed, value, holds in (
            ("1 <= steps < 2**31", self.steps, 1 <= self.steps < 2**31),
            ("warmup >= 0", self.warmup, self.warmup >= 0),
            ("0 <= ema < 1", self.ema, 0 <= self.ema < 1),
            ("0 < learning_rate <= 1", self.learning_rate, 0 < self.learning_rate <= 1),
            ("0 <= final_rate <= 1", self.final_rate, 0 <= self.final_rate <= 1),
            ("gradient_norm > 0", self.gradient_norm, self.gradient_norm > 0),
            (
                "darkened = two numbers from 0 to 1",
                self.darkened,
                len(self.darkened) == 2 and all(0 <= value <= 1 for value in self.darkened),
            ),
            ("0 <= seed < 2**63", self.seed, 0 <= self.seed < 2**63),
            ("layers in INT8", self.layers, (self.layers is None) == (self.objective != "int8")),
            ("validation_steps >= 1", self.validation_steps, self.validation_steps >= 1),
        ):
            if not holds:
                raise RecipeError(f"recipe {self.name}: needs {needed}, not {str(value)[:20]}")

    def phase(self, step: int) -> Phase:
        """The phase that step ``step`` (from 0) is in."""
        share = step / self.steps
        return next((phase for phase in self.phases if share < phase.until), self.phases[-1])

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``: linear warm-up, then half a cosine."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        swing = self.learning_rate - self.final_rate
        return self.final_rate + swing * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def pixels(self, start: int) -> int:
        """Pixels of all pairs from step ``start`` on, to which the time left is proportional."""
        total = 0
        first = 0
        for phase in self.phases:
            last = math.ceil(phase.until * self.steps)
            total += max(last - max(first, start), 0) * phase.batch * phase.patch**2
            first = last
        return total

    def describe(self) -> dict[str, Any]:
        """Everything that the weights depend on, as JSON can hold it."""
        said = dataclasses.asdict(self)
        said["degradations"] = [[share, repr(made)] for share, made in self.degradations]
        said["gradient_norm"] = str(self.gradient_norm)
        del said["validation_steps"]
        return said


# Noise mostly of the strength of real photographs, some of any strength; JPEG alone and after it.
_PHOTOGRAPHS: tuple[tuple[float, Degradation], ...] = (
    (0.2, GaussianNoise((0.0, 50.0))),
    (0.4, GaussianNoise((15.0, 35.0))),
    (0.2, Jpeg((30, 95))),
    (0.2, Chain((GaussianNoise((0.0, 50.0)), Jpeg((30, 95))))),
)

_DCPT_MINIATURE = Recipe(
    name="dcpt-miniature",
    network="nafnet-dcpt",
    config={
        "width": 12,
        "encoder_blocks": (1, 1, 2),
        "middle_blocks": 1,
        "decoder_blocks": (1, 1, 1),
    },
    objective="dcpt",
    steps=1500,
    phases=(Phase(1.0, 48, 8),),
    learning_rate=2e-3,
    warmup=50,
    gradient_norm=1.0,
    ema=0.99,
    degradations=tuple((1.0, made) for made in dcpt_degradations().values()),
    # Drawn lines would be classified as rain, grain as noise.
    hardened=False,
    # Without it dark pictures are classified as low light.
    darkened=(0.6, 0.1),
    zeroed=("ending",),
    validation_steps=250,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="hinet-tiny",
            network="hinet-tiny",
            steps=14000,
            # Small batches first, when every step helps; large crops last, whose instance
            # statistics are nearer to those of whole pictures.
            phases=(Phase(0.5, 64, 8), Phase(0.8, 64, 16), Phase(1.0, 128, 4)),
            learning_rate=1e-3,
            gradient_norm=1.0,
            degradations=_PHOTOGRAPHS,
            precision="bf16",
            zeroed=("last", "sam12.conv2"),
        ),
        _DCPT_MINIATURE,
        # The same network trained to restore only: the baseline of pre-training.
        dataclasses.replace(_DCPT_MINIATURE, name="nafnet-miniature", objective="psnr"),
    )
}


def int8_recipe(spec: NetworkSpec, layers: QuantizedLayers) -> Recipe:
    """The fine-tuning of a network for INT8, in all conditions of its spec.

    Crops are larger at the end, for the sake of instance statistics; 1000 steps of 73,000 pixels
    are an hour for a small network on a CPU, and minutes on a GPU.
    """
    made = [Chain(()) if name == "given" else degradation(name) for name in spec.conditions]
    patches = [padded_size(side, spec.size_multiple) for side in (96, 144)]
    return Recipe(
        name=f"{spec.name}-int8",
        network=spec.name,
        config=dataclasses.asdict(spec.config),
        objective="int8",
        layers=layers,
        steps=1000,
        phases=(Phase(0.6, patches[0], 8), Phase(1.0, patches[1], 4)),
        learning_rate=4e-5,
        final_rate=8e-7,
        warmup=30,
        gradient_norm=1.0,
        ema=0.995,
        degradations=tuple((1.0, each) for each in made),
        darkened=(0.3, 0.1),
        validation_steps=250,
    )


def recipe(name: str) -> Recipe:
    """The recipe called ``name``.

    Raises:
        InputError: no such recipe; the message lists the nearest ones.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
    raise InputError(f"no recipe {name!r}; did you mean {', '.join(near)}?")
