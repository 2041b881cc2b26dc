"""One training run: steps, validation, checkpoints; resumable to the bit.

Plain PyTorch: a step is ten lines, and what a trainer library would add (devices, strategies,
loggers) a run on one machine does not need, while exact resumption is easier to promise without it.
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
from safetensors.torch import save_file
from torch import Tensor, nn

from restorert.errors import CheckpointError, InputError, RestorertError
from restorert.files import remove_remains, replace_atomically
from restorert.networks import create_network
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.networks.module import RestorationNetwork
from restorert.pictures.files import Picture, write_image
from restorert.pictures.pixels import from_unit_range
from restorert.training import losses
from restorert.training.data import Batch, Levels, Pairs
from restorert.training.dcpt import classifier_for, dcpt_losses
from restorert.training.recipes import Recipe
from restorert.weights import load_network, save_network
from restorert.weights.load import not_finite_tensor

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1


@dataclass(frozen=True)
class Report:
    """Where a run stands.

    Attributes:
        step, steps: done and to do in all.
        loss: mean since the last report.
        quality: since the last report: PSNR in dB, or for DCPT the share of degradations named
            rightly.
        seconds_left: at the pace of the last steps.
        validation: what the last validation found, else empty.
    """

    step: int
    steps: int
    loss: float
    quality: float
    seconds_left: float
    validation: Mapping[str, float]


class Trainer:
    """A run in a folder; ``checkpoint.pt`` there is all of its state.

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
        """Start the run, or go on where the checkpoint in ``out`` ends.

        Args:
            recipe: of the run; a checkpoint of another recipe is refused.
            photographs: [H, W, 3] uint8 RGB each.
            out: the run's folder, made if missing.
            validation: whole pictures that ``photographs`` does not hold.
            device: "cpu" or "cuda".
            initial: a checkpoint of weights to start from, not needed to resume.

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
        self.module = self._placed(_module(recipe, start))
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
            raise CheckpointError(f"{self.out}: no folder to train in ({error.strerror})") from None
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

        SIGTERM and the keyboard's interrupt end the run after the step in progress, saved; a run
        that is killed outright loses what it did since the last save, and does the same again.

        Args:
            report: called about every ``report_every`` seconds and after validations.
            report_every, save_every: in seconds; they change nothing that is computed.
            until: stop there, for whoever trains in portions.

        Raises:
            RestorertError: the loss or the weights are no numbers any more; the checkpoint is from
                before.
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
                loss, good = self._advance(
                    self.pairs.batch(self.step, phase.batch, phase.patch), self.recipe
                )
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
                    # The median: a run that was paused is no slower for it.
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
        """A step's loss is from before its update, so that the last one's tells nothing of it."""
        for tensors in (self.module.state_dict(), self.mean):
            name = not_finite_tensor(tensors)
            if name is not None:
                raise self._diverged(f"{name} is not finite after step {self.step}")

    def _diverged(self, what: str) -> RestorertError:
        kept = (
            f"{self.checkpoint} is from before" if self.checkpoint.exists() else "nothing is saved"
        )
        return RestorertError(f"{what}; {kept}: train with a lower learning rate")

    def _advance(self, batch: Batch, recipe: Recipe) -> tuple[float, float]:
        """One step; its loss, and its PSNR or share of right answers."""
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        degraded = batch.degraded.to(self.device)
        clean = batch.clean.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss, quality = _objective(
                recipe.objective, self.module, degraded, clean, batch.labels.to(self.device)
            )
        loss.backward()
        if math.isfinite(recipe.gradient_norm):
            nn.utils.clip_grad_norm_(self.module.parameters(), recipe.gradient_norm)
        self.optimizer.step()
        # Young means follow faster, or they would be of random weights for a thousand steps.
        decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
        state = self._state()
        torch._foreach_lerp_(
            list(self.mean.values()), [state[name] for name in self.mean], 1 - decay
        )
        return float(loss.detach()), float(quality)

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
            if self.stopped:  # asked twice
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
        made = _module(self.recipe, None)
        made.load_state_dict({k: v.detach().cpu() for k, v in self.mean.items()}, strict=True)
        return made.eval().requires_grad_(False)

    def validate(self) -> dict[str, float]:
        """The mean weights on the held-out pictures' middles, each degradation seeded.

        Restoration: the mean PSNR in dB of each degradation, "input 0" and "output 0" for the
        first, and ``validation.png``: a row a degradation, input, output and target of one
        picture. DCPT: "accuracy", 0 to 1.
        """
        if not self.validation:
            return {}
        self._check_weights()
        module = self._placed(self.averaged())
        degradations = [made for _, made in self.recipe.degradations]
        found: dict[str, float] = {}
        rows: list[Tensor] = []
        right: list[float] = []
        for label, degradation in enumerate(degradations):
            before, after = [], []
            for number, levels in enumerate(self.validation):
                rng = np.random.default_rng((self.recipe.seed, label, number))
                clean = np.asarray(levels, np.float32) / np.float32(255)
                pictures = [
                    torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1)))[None]
                    for p in (degradation(clean, rng), clean)
                ]
                degraded, target = (picture.to(self.device) for picture in pictures)
                with torch.no_grad(), self._precision():
                    if isinstance(module, DegradationClassifier):
                        right.append(float(module(degraded).argmax(dim=1)[0] == label))
                        continue
                    restored = module(degraded).float()
                before.append(_psnr(degraded, target))
                after.append(_psnr(restored, target))
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
        """Write the whole state; the checkpoint is the old one or the new one, never half.

        Raises:
            CheckpointError: it cannot be written.
            RestorertError: the weights are not finite; the old one stays.
        """
        self._check_weights()
        state = {
            "format": _FORMAT,
            "recipe": json.dumps(self.recipe.describe()),
            "step": self.step,
            "module": self.module.state_dict(),
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
        }
        try:
            remove_remains(self.checkpoint)
            with replace_atomically(self.checkpoint) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise CheckpointError(f"{self.checkpoint}: cannot be written ({reason})") from None

    def _resume(self) -> None:
        state = _read_run(self.out)
        own = json.loads(json.dumps(self.recipe.describe()))
        other = sorted(key for key in own if own[key] != state["recipe"].get(key))
        if other:
            what = ", ".join(f"{key} {state['recipe'].get(key)}" for key in other)
            raise CheckpointError(
                f"{self.checkpoint}: is of another run ({what[:160]}); give another --out, or "
                "remove it"
            )
        try:
            self.module.load_state_dict(state["module"], strict=True)
            self.optimizer.load_state_dict(state["optimizer"])
            for name, value in self.mean.items():
                value.copy_(state["mean"][name])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            raise CheckpointError(_damaged(self.checkpoint)) from None
        self.step = state["step"]


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
        recipe: refuse the run of another one.

    Returns:
        The files written, and the steps that were done.

    Raises:
        CheckpointError: the folder's checkpoint cannot be read or is of another recipe than
            ``recipe``; weights that are not finite; or a file cannot be written.
    """
    state = _read_run(Path(out))
    said = state["recipe"]
    if recipe is not None and said.get("name") != recipe:
        raise CheckpointError(
            f"{out}: holds a run of recipe {said.get('name')}, not of {recipe}; name that recipe, "
            "or another folder with --out"
        )
    try:
        network = create_network(said["network"], **said["config"])
        module = _trained(network, said["objective"], len(said["degradations"]))
        module.load_state_dict(state["mean"], strict=True)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise CheckpointError(_damaged(Path(out) / CHECKPOINT)) from None
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


def _read_run(out: Path) -> dict[str, Any]:
    path = out / CHECKPOINT
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["recipe"] = json.loads(state["recipe"])
        state["step"] = int(state["step"])
        if state["format"] != _FORMAT:
            raise ValueError(f"format {state['format']}")
        if not isinstance(state["recipe"], dict):
            raise TypeError("no recipe")
    except FileNotFoundError:
        raise CheckpointError(f"{out}: holds no run; name its folder with --out") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise CheckpointError(f"{path}: not enough memory to read it") from None
    except Exception:  # whatever a broken file makes torch say
        raise CheckpointError(_damaged(path)) from None
    return dict(state)


def _damaged(path: Path) -> str:
    size = path.stat().st_size if path.exists() else 0
    what = "is no checkpoint of a training run, or a damaged one" if size else "is an empty file"
    return f"{path} {what}; remove it to start anew"


def _module(recipe: Recipe, initial: str | os.PathLike[str] | None) -> nn.Module:
    """What the recipe trains, with seeded random weights or those of a file."""
    network = create_network(recipe.network, seed=recipe.seed, **recipe.config)
    if initial is not None:
        given = load_network(initial, name=recipe.network)
        if given.spec.config != network.spec.config:
            raise CheckpointError(
                f"{initial}: a {recipe.network} of other sizes than recipe {recipe.name} trains"
            )
        network.load_state_dict(given.state_dict())
    else:
        for name in recipe.zeroed:
            for parameter in network.get_submodule(name).parameters():
                parameter.data.zero_()
    return _trained(network, recipe.objective, len(recipe.degradations), recipe.seed)


def _trained(network: RestorationNetwork, objective: str, classes: int, seed: int = 0) -> nn.Module:
    """The network itself, or for DCPT the network and a decoder."""
    if objective != "dcpt":
        return network
    return classifier_for(network, [f"class {number}" for number in range(classes)], seed=seed)


def _objective(
    name: str, module: nn.Module, degraded: Tensor, clean: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """The loss to minimise, and the PSNR or the share of right answers."""
    if isinstance(module, DegradationClassifier):
        parts = dcpt_losses(module, clean, degraded, labels)
        right = (parts["scores"].detach().argmax(dim=1) == labels).float().mean()
        return parts["pixel"] + parts["class"], float(right)
    assert isinstance(module, RestorationNetwork)
    stages = module.stages(degraded)
    whole = [stage for stage in stages if stage.shape == clean.shape]
    if name == "psnr":
        loss = losses.hinet_loss(whole, clean)
    elif name == "charbonnier-edge":
        loss = losses.mprnet_loss(whole, clean)
    elif name == "multiscale":
        loss = losses.euclidean_multiscale_loss(stages, clean)
    else:
        raise InputError(
            f"no objective {name!r}; there are psnr, charbonnier-edge, multiscale, dcpt"
        )
    return loss, -float(losses.psnr_loss(stages[-1].detach(), clean))


def _middle(levels: Levels, side: int) -> Levels:
    """The middle ``side`` pixels square, or of as many multiples of 64 as the picture has."""
    height, width = (min(side, length // 64 * 64) for length in levels.shape[:2])
    top, left = (levels.shape[0] - height) // 2, (levels.shape[1] - width) // 2
    return levels[top : top + height, left : left + width]


def _psnr(restored: Tensor, target: Tensor) -> float:
    return -float(losses.psnr_loss(restored.clamp(0, 1), target, eps=1e-12))
