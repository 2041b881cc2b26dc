"""One training run: steps, validation, checkpoints; resumable to the bit.

Plain PyTorch: a step is ten lines, a run on one machine needs nothing that a trainer library adds
(devices, strategies, loggers), and exact resumption is easier to guarantee without one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restorert.errors import CheckpointError, RestorertError
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.pictures.degradations import to_unit
from restorert.pictures.files import write_image
from restorert.pictures.picture import Picture
from restorert.pictures.pixels import from_unit_range
from restorert.training.checkpoint import CHECKPOINT, MISFITS, damaged, read_run, write_run
from restorert.training.data import Batch, Levels, Pairs, planes
from restorert.training.dcpt import accuracy
from restorert.training.objective import build_module, loss_and_quality, mean_psnr
from restorert.training.recipes import Recipe
from restorert.weights.load import not_finite_tensor


@dataclass(frozen=True)
class Report:
    """The progress of a run.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: mean since the last report.
        quality: mean since the last report: PSNR in dB, or for DCPT the share of degradations named
            correctly.
        seconds_left: estimated from the pace of the last steps.
        validation: what `Trainer.validate` found at this step; empty if it did not run.
    """

    step: int
    steps: int
    loss: float
    quality: float
    seconds_left: float
    validation: Mapping[str, float]


class Trainer:
    """A training run, whose whole state is ``checkpoint.pt`` in its folder.

    Attributes:
        module: what is trained: the network, or for DCPT network and decoder.
        mean: the exponential moving average of its weights.
        step: steps done.
    """

    def __init__(
        self,
        recipe: Recipe,
        photographs: Sequence[Levels],
        out: str | os.PathLike[str],
        *,
        validation: Sequence[Levels] = (),
        device: str = "cpu",
        initial: str | os.PathLike[str] | None = None,
    ) -> None:
        """Start the run, or resume it from the checkpoint in ``out``.

        Args:
            recipe: must equal the recipe of the checkpoint in ``out``, if there is one.
            photographs: [H, W, 3] uint8 RGB each.
            out: the run's folder, created if missing.
            validation: whole pictures that are not among ``photographs``.
            device: "cpu" or "cuda".
            initial: a checkpoint of weights to start from; ignored when the run resumes.

        Raises:
            CheckpointError: the folder's checkpoint cannot be read or is of another recipe, or
                ``initial`` does not fit the network.
            InputError: no photographs, or none as large as the recipe's crops.
        """
        self.recipe = recipe
        self.out = Path(out)
        self.device = torch.device(device)
        self.pairs = Pairs(
            photographs,
            [made for _, made in recipe.degradations],
            shares=[share for share, _ in recipe.degradations],
            hardened=recipe.hardened,
            darkened=recipe.darkened,
            seed=recipe.seed,
        )
        self.validation = [_middle(picture, 256) for picture in validation]
        start = None if self.checkpoint.exists() else initial
        self.module = self._placed(build_module(recipe, start))
        self.module.train().requires_grad_(True)
        parameters = list(self.module.parameters())
        self.optimizer = torch.optim.Adam(
            parameters, lr=recipe.learning_rate, betas=recipe.betas, foreach=True
        )
        self.mean = {name: value.detach().clone() for name, value in self._state().items()}
        self.step = 0
        self.stopped = False
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.out}: cannot be created ({error.strerror})") from None
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        """The file that holds the whole state of the run."""
        return self.out / CHECKPOINT

    def _state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.module.state_dict().items() if v.is_floating_point()}

    def _placed(self, module: nn.Module) -> nn.Module:
        placed: nn.Module = module.to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        return placed

    # ---- the loop --------------------------------------------------------------------------------

    def train(
        self,
        report: Callable[[Report], None] | None = None,
        *,
        report_every: float = 30.0,
        save_every: float = 60.0,
        until: int | None = None,
    ) -> None:
        """Train to the recipe's last step, or to step ``until``, and save.

        SIGTERM and SIGINT end the run after the step in progress, and save it. A run that is killed
        loses the steps since the last save, and repeats them exactly when it is resumed.

        Args:
            report: called about every ``report_every`` seconds and after validations.
            report_every, save_every: in seconds; they do not change the weights.
            until: stop after this step, to train in portions.

        Raises:
            RestorertError: the loss or the weights are not finite; the checkpoint stays as it was.
        """
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        now = time.monotonic()
        reported = saved = now
        total, quality, count = 0.0, 0.0, 0
        durations: list[float] = []
        with self._stop_signals():
            while self.step < last and not self.stopped:
                began = time.monotonic()
                phase = self.recipe.phase(self.step)
                loss, good = self._advance(self.pairs.batch(self.step, phase.batch, phase.patch))
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss is {loss} at step {self.step}")
                self.step += 1
                total, quality, count = total + loss, quality + good, count + 1
                now = time.monotonic()
                durations.append((now - began) / (phase.batch * phase.patch**2))
                validated: Mapping[str, float] = {}
                if self.step % self.recipe.validation_steps == 0 or self.step == last:
                    validated = self.validate()
                if report and (validated or now - reported >= report_every):
                    # The median, so that a pause does not count.
                    pace = float(np.median(durations[-200:]))
                    report(
                        Report(
                            step=self.step,
                            steps=self.recipe.steps,
                            loss=total / count,
                            quality=quality / count,
                            seconds_left=pace * self.recipe.pixels(self.step),
                            validation=validated,
                        )
                    )
                    reported, total, quality, count = now, 0.0, 0.0, 0
                if now - saved >= save_every:
                    self.save()
                    saved = now
            self.save()

    def _check_weights(self) -> None:
        """Refuse weights that are not finite: the loss of a step is from before its update."""
        for tensors in (self.module.state_dict(), self.mean):
            name = not_finite_tensor(tensors)
            if name is not None:
                raise self._diverged(f"{name} is not finite after step {self.step}")

    def _diverged(self, what: str) -> RestorertError:
        kept = (
            f"{self.checkpoint} is from before" if self.checkpoint.exists() else "nothing is saved"
        )
        return RestorertError(f"{what}; {kept}: train with a lower learning rate")

    def _advance(self, batch: Batch) -> tuple[float, float]:
        """Do one step: its loss, and the PSNR in dB or the share of correct answers."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        degraded, clean, labels = (
            tensor.to(self.device) for tensor in (batch.degraded, batch.clean, batch.labels)
        )
        with self._precision():
            loss, quality = loss_and_quality(recipe.objective, self.module, degraded, clean, labels)
        loss.backward()
        if math.isfinite(recipe.gradient_norm):
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.gradient_norm)
        self.optimizer.step()
        # The mean follows faster at first, or it would hold random weights for a thousand steps.
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        state = self._state()
        torch._foreach_lerp_(
            list(self.mean.values()), [state[name] for name in self.mean], 1 - decay
        )
        return float(loss.detach()), quality

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _stop_signals(self) -> Iterator[None]:
        self.stopped = False
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread only
            return

        def stop(number: int, frame: object) -> None:
            if self.stopped:  # the second signal
                raise KeyboardInterrupt
            self.stopped = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    # ---- validation ------------------------------------------------------------------------------

    def averaged(self) -> nn.Module:
        """A copy of the module with the mean weights, in eval mode, float32, on the CPU."""
        made = build_module(self.recipe)
        made.load_state_dict({k: v.detach().cpu() for k, v in self.mean.items()}, strict=True)
        return made.eval().requires_grad_(False)

    def validate(self) -> dict[str, float]:
        """Run the mean weights on the middle of each held-out picture, degraded with a fixed seed.

        Restoration also writes ``validation.png``: for each degradation a row with the input, the
        output and the target of the first picture.

        Returns:
            The mean PSNR in dB for each degradation ("input 0" and "output 0" for the first), or
            for DCPT "accuracy", 0 to 1. Empty if no pictures are held out.
        """
        if not self.validation:
            return {}
        self._check_weights()
        module = self._placed(self.averaged())
        found: dict[str, float] = {}
        rows: list[Tensor] = []
        right: list[float] = []
        for label, (_, degradation) in enumerate(self.recipe.degradations):
            before, after = [], []
            for number, levels in enumerate(self.validation):
                rng = np.random.default_rng((self.recipe.seed, label, number))
                clean = to_unit(levels)
                both = planes(np.stack([degradation(clean, rng), clean])).to(self.device)
                degraded, target = both[:1], both[1:]
                with torch.no_grad(), self._precision():
                    if isinstance(module, DegradationClassifier):
                        answer = torch.tensor([label], device=self.device)
                        right.append(accuracy(module, degraded, answer))
                        continue
                    restored = module(degraded).float()
                before.append(mean_psnr(degraded.clamp(0, 1), target))
                after.append(mean_psnr(restored.clamp(0, 1), target))
                if number == 0:
                    rows.append(torch.cat([degraded, restored, target], dim=3))
            if after:
                found[f"input {label}"] = float(np.mean(before))
                found[f"output {label}"] = float(np.mean(after))
        if right:
            found["accuracy"] = float(np.mean(right))
        if rows:
            sheet = torch.cat(rows, dim=2).float().cpu().numpy()
            write_image(self.out / "validation.png", Picture(from_unit_range(sheet, np.uint8)[0]))
        return found

    # ---- files -----------------------------------------------------------------------------------

    def save(self) -> None:
        """Replace the checkpoint by the state of now, atomically.

        Raises:
            CheckpointError: it cannot be written.
            RestorertError: the weights are not finite; the checkpoint stays as it was.
        """
        self._check_weights()
        state = {
            "module": self.module.state_dict(),
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
        }
        write_run(self.checkpoint, self.recipe, self.step, state)

    def _resume(self) -> None:
        state = read_run(self.checkpoint)
        own = json.loads(json.dumps(self.recipe.describe()))
        other = sorted(key for key in own if own[key] != state["recipe"].get(key))
        if other:
            what = ", ".join(f"{key} {state['recipe'].get(key)}" for key in other)
            raise CheckpointError(
                f"{self.checkpoint}: is of another run ({what[:160]}); train in another folder, "
                "or remove it"
            )
        try:
            self.module.load_state_dict(state["module"], strict=True)
            self.optimizer.load_state_dict(state["optimizer"])
            for name, value in self.mean.items():
                value.copy_(state["mean"][name])
        except MISFITS:
            raise damaged(self.checkpoint) from None
        self.step = state["step"]


def _middle(levels: Levels, side: int) -> Levels:
    """The middle of a picture: ``side`` pixels a side, or the most multiples of 64 that fit."""
    height, width = (min(side, length // 64 * 64) for length in levels.shape[:2])
    top, left = (levels.shape[0] - height) // 2, (levels.shape[1] - width) // 2
    return levels[top : top + height, left : left + width]
