"""DCPT in miniature: does pre-training by classification help a tiny network restore?

    python benchmarks/dcpt_miniature.py --images DIR [--pretrain 600] [--finetune 600] [--seeds 2]

A NAFNet of 1/4 width is pre-trained on five degradations (Hu et al., ICLR 2025), then fine-tuned to
restore all five, beside the same network of random weights trained for as many steps on the same
pairs. Accuracy and PSNR are of crops of whole pictures that no training saw: those of --hold-out,
and scikit-image's astronaut, coffee, cat and rocket. A pause changes nothing: the runs in --out
resume.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage import data
from torch import Tensor

import report
from restorert.command_line import number
from restorert.errors import InputError
from restorert.networks.degradation_classifier import DegradationClassifier
from restorert.pictures.degradations import dcpt_degradations
from restorert.training import (
    Batch,
    Pairs,
    Report,
    Trainer,
    export_run,
    read_photographs,
    recipe,
)

CROPS, PATCH = 400, 64
MEASURED = (data.astronaut, data.coffee, data.cat, data.rocket)


def main() -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--hold-out", action="append", default=[], metavar="FILE")
    steps = number(int, 1, 10**6)
    parser.add_argument("--pretrain", type=steps, default=600, metavar="STEPS")
    parser.add_argument("--finetune", type=steps, default=600, metavar="STEPS")
    parser.add_argument("--seeds", type=number(int, 1, 1000), default=2, help="repetitions")
    parser.add_argument("--out", type=Path, default=Path("runs/dcpt"), metavar="DIR")
    parser.add_argument("--threads", type=number(int, 1, 1024), default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    return report.main(parser, run)


def run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    console = Console(width=None if sys.stdout.isatty() else 140)
    report.print_header(console)
    photographs = read_photographs(options.images)
    held = options.hold_out or list(photographs)[4::9]
    for name in held:
        if name not in photographs:
            raise InputError(f"--hold-out {name}: no such picture in {options.images}")
    seen = [levels for name, levels in photographs.items() if name not in held]
    unseen = Pairs(
        [photographs[name] for name in held] + [np.asarray(p()) for p in MEASURED],
        list(dcpt_degradations().values()),
        hardened=False,
        seed=12345,
    )
    tests = [unseen.batch(step, 20, PATCH) for step in range(CROPS // 20)]

    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        first = dataclasses.replace(recipe("dcpt-miniature"), steps=options.pretrain, seed=seed)
        folder = options.out / f"pretrain-{seed}"
        _train(Trainer(first, seen, folder), console)
        pretraining = Trainer(first, seen, folder)
        named = _accuracy(pretraining, tests)
        rows.append({"seed": seed, "what": "accuracy", **named})
        encoder = folder / "encoder.safetensors"
        export_run(folder, encoder, half=False)
        second = dataclasses.replace(
            recipe("nafnet-miniature"), steps=options.finetune, seed=1000 + seed
        )
        for what, start in (("with pre-training", encoder), ("without", None)):
            run_ = Trainer(second, seen, options.out / f"{what}-{seed}", initial=start)
            _train(run_, console)
            rows.append({"seed": seed, "what": what, **_restoration(run_, tests)})
        rows.append({"seed": seed, "what": "input", **_restoration(None, tests)})
    _print(console, rows)
    if options.json:
        settings = {
            "pretrain_steps": options.pretrain,
            "finetune_steps": options.finetune,
            "crops": CROPS,
            "patch": PATCH,
            "held_out": held,
        }
        report.write_json(options.json, "dcpt_miniature", settings, rows)
    return 0


def _train(trainer: Trainer, console: Console) -> None:
    def show(found: Report) -> None:
        console.print(
            f"{trainer.out.name}: step {found.step}/{found.steps}, loss {found.loss:.3f}, "
            f"{found.quality:.3f}",
            highlight=False,
        )

    trainer.train(show)
    if trainer.stopped:
        raise KeyboardInterrupt


def _by_class(values: Tensor, tests: list[Batch]) -> dict[str, float]:
    labels = torch.cat([batch.labels for batch in tests])
    found = {
        name: float(values[labels == label].mean())
        for label, name in enumerate(dcpt_degradations())
    }
    return {**found, "mean": float(np.mean(list(found.values())))}


@torch.no_grad()
def _accuracy(trainer: Trainer, tests: list[Batch]) -> dict[str, float]:
    classifier = trainer.averaged()
    assert isinstance(classifier, DegradationClassifier)
    right = [(classifier(b.degraded).argmax(dim=1) == b.labels).double() for b in tests]
    return _by_class(torch.cat(right), tests)


@torch.no_grad()
def _restoration(trainer: Trainer | None, tests: list[Batch]) -> dict[str, float]:
    network = trainer.averaged() if trainer else torch.nn.Identity()
    decibels = []
    for batch in tests:
        restored = network(batch.degraded).clamp(0, 1).double()
        error = (restored - batch.clean).square().mean(dim=(1, 2, 3))
        decibels.append(-10 * torch.log10(error.clamp(min=1e-12)))
    return _by_class(torch.cat(decibels), tests)


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="held-out crops: share named rightly; PSNR in dB after equal steps")
    names = [*dcpt_degradations(), "mean"]
    for heading in ("seed", "what", *names):
        table.add_column(heading)
    for row in rows:
        style = ".1%" if row["what"] == "accuracy" else ".2f"
        table.add_row(str(row["seed"]), row["what"], *(format(row[name], style) for name in names))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
