"""``python -m restorert.training``: train a network by a recipe, or fine-tune it for INT8.

The same command resumes a run that was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorert.command_line import Parser, guarded, number
from restorert.errors import InputError

if TYPE_CHECKING:
    from restorert.training.recipes import Recipe
    from restorert.training.trainer import Report, Trainer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. No traceback reaches the user."""
    return guarded("restorert.training", lambda: _run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m restorert.training", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--recipe", metavar="NAME", help="hinet-tiny, ...")
    task.add_argument(
        "--qat",
        type=Path,
        metavar="FILE.onnx",
        help="fine-tune the network of --init for INT8, as this file of `restorert calibrate "
        "--no-deploy` quantises it",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of photographs")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder; default: runs/RECIPE"
    )
    parser.add_argument(
        "--hold-out",
        action="append",
        default=[],
        metavar="FILE",
        help="file name of a photograph to validate with; may be repeated; default: every ninth",
    )
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights to start from")
    parser.add_argument("--steps", type=int, help="overrides the recipe's")
    parser.add_argument("--learning-rate", type=float, help="overrides the recipe's")
    parser.add_argument("--seed", type=int, help="overrides the recipe's")
    parser.add_argument(
        "--threads", type=number(int, 1, 1024), help="CPU threads; default: torch's choice"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    for name, default in (("report", 30.0), ("save", 60.0)):
        parser.add_argument(
            f"--{name}-every",
            type=number(float, 0),
            default=default,
            metavar="SECONDS",
            help=f"default: {default:g}",
        )
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="only write the run's current weights"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    import torch

    from restorert.training import Trainer, export_run, read_photographs, recipe

    chosen = recipe(options.recipe) if options.qat is None else _int8_recipe(options)
    changes = {
        "steps": options.steps,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
    }
    chosen = dataclasses.replace(chosen, **{k: v for k, v in changes.items() if v is not None})
    out = options.out or Path("runs") / chosen.name
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.export is not None:
        written, step = export_run(out, options.export, recipe=chosen.name)
        for path in written:
            print(path)
        print(f"weights after {step} steps", file=sys.stderr)
        return 0
    if options.images is None:
        raise InputError("name a folder of photographs with --images DIR")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu")
    photographs = read_photographs(options.images)
    held = _held_out(photographs, options.hold_out)
    trainer = Trainer(
        chosen,
        [levels for name, levels in photographs.items() if name not in held],
        out,
        validation=[photographs[name] for name in held],
        device=device,
        initial=options.init,
    )
    verb = f"resumes after {trainer.step} of" if trainer.step else "runs"
    print(
        f"{chosen.name} {verb} {chosen.steps} steps on {device}: {len(photographs) - len(held)} "
        f"photographs, validated with {', '.join(held) or 'none'}; {trainer.checkpoint}",
        file=sys.stderr,
        flush=True,
    )
    with _Display(chosen.steps) as show:
        trainer.train(show, report_every=options.report_every, save_every=options.save_every)
    if trainer.step < chosen.steps:
        print(f"stopped after {trainer.step} steps; the same command resumes", file=sys.stderr)
        return 130
    if options.qat is not None:
        return _write_int8(trainer, [options.images / name for name in held])
    for path in export_run(out, out / f"{chosen.network}.safetensors")[0]:
        print(path)
    return 0


def _int8_recipe(options: argparse.Namespace) -> Recipe:
    from restorert import load_network
    from restorert.training import int8_recipe, read_quantized_layers

    if options.init is None:
        raise InputError("--qat fine-tunes the weights of --init FILE, which is missing")
    return int8_recipe(load_network(options.init).spec, read_quantized_layers(options.qat))


def _write_int8(trainer: Trainer, held: Sequence[Path]) -> int:
    from restorert import read_patches
    from restorert.quantize import quality_table
    from restorert.training import FakeQuantized, write_int8

    module = trainer.averaged()
    assert isinstance(module, FakeQuantized)
    patches = read_patches(held, module.network.spec) if held else None
    written, report = write_int8(module, trainer.out, patches)
    if report.quality:
        print("\n".join(quality_table(report.quality)), file=sys.stderr)
    for path in written:
        print(path)
    return 0


def _held_out(photographs: dict[str, Any], asked: Sequence[str]) -> list[str]:
    """The pictures to validate with: those asked for, or every ninth from the fifth on."""
    for name in asked:
        if name not in photographs:
            raise InputError(f"--hold-out {name}: not among {', '.join(photographs)}")
    held = list(dict.fromkeys(asked)) or list(photographs)[4::9]
    if len(held) >= len(photographs):
        raise InputError(f"{len(photographs)} photographs leave none to train with")
    return held


class _Display:
    """A progress bar on a terminal, else a line for each report."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=steps)

    def __enter__(self) -> _Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, report: Report) -> None:
        text = _line(report)
        if self.console.is_terminal:
            self.bar.update(self.task, completed=report.step, description=text)
            if report.validation:
                self.console.print(f"step {report.step}: {_validation(report)}")
        else:
            more = f"  validation: {_validation(report)}" if report.validation else ""
            print(f"step {report.step}/{report.steps}  {text}{more}", file=sys.stderr, flush=True)


def _line(report: Report) -> str:
    # DCPT reports a share, everything else decibels.
    is_share = 0 <= report.quality <= 1
    quality = f"{report.quality:.1%} correct" if is_share else f"PSNR {report.quality:.2f} dB"
    minutes, seconds = divmod(round(report.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"loss {report.loss:.4f}  {quality}  left {hours}:{minutes:02d}:{seconds:02d}"


def _validation(report: Report) -> str:
    found = dict(report.validation)
    if "accuracy" in found:
        return f"{found['accuracy']:.1%} of the degradations correct"
    count = len(found) // 2
    return ", ".join(
        f"{found[f'input {i}']:.2f} -> {found[f'output {i}']:.2f} dB" for i in range(count)
    )


if __name__ == "__main__":
    sys.exit(main())
