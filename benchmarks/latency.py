"""Latency of a network on a runner, beside other ways to run it.

    python benchmarks/latency.py --model hinet --fp16 --size 256x256 --compare torch,onnxruntime

Every candidate runs in this one process, in turn, on the same picture; its output is compared with
the float32 network's, and the error stands beside the time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

import report
import restorert as rr
from restorert.backends import runner_names
from restorert.backends.openvino.module import compile_options, core, load_module, precision_of
from restorert.backends.torch.run import TorchRunner
from restorert.command_line import number
from restorert.engine import device as devices
from restorert.engine.profile import ShapeProfile, parse_size
from restorert.errors import InputError
from restorert.export import export_onnx, inline_functions
from restorert.networks import RestorationNetwork
from restorert.networks.counts import count_macs, count_parameters
from restorert.quantize import Patches
from restorert.testing import max_error, peak_memory, psnr, time_side_by_side
from tables import paper_macs_share, paper_parameters


@dataclass
class Candidate:
    """One way to run the network at one size."""

    name: str
    version: str
    precision: str
    call: Callable[[Tensor], Tensor]
    peak_bytes: int = 0


Maker = Callable[[RestorationNetwork, "Settings", Tensor], Candidate]


@dataclass(frozen=True)
class Settings:
    """What every candidate is made with.

    ``folder`` holds its files, ``images`` calibrate int8; engines take the size that is timed, or
    where ``dynamic`` any smaller one too.
    """

    precision: str
    device: torch.device
    folder: Path
    deploy: bool = True
    images: Path | None = None
    dynamic: bool = False


def _runner(name: str, *, deploy: bool = True, precision: str | None = None) -> Maker:
    def make(network: RestorationNetwork, settings: Settings, x: Tensor) -> Candidate:
        form = deploy and settings.deploy
        asked = precision or settings.precision
        profile = ShapeProfile.up_to(tuple(x.shape), network.spec.size_multiple)
        engine = rr.build_engine(
            _quantized(network, settings, x) if asked == "int8" else network,
            precision=asked,
            profile=profile if settings.dynamic else ShapeProfile.fixed(profile.max),
            runner=name,
            deploy=form,
        )
        r = engine.runner
        return Candidate(r.name + ("" if form else " as published"), r.version, r.precision, engine)

    return make


def _quantized(network: RestorationNetwork, settings: Settings, x: Tensor) -> Path:
    path = settings.folder / "network-int8.onnx"
    if not path.exists():
        patches = Patches.given([x[:1].cpu().numpy()])
        if settings.images:
            patches = rr.read_patches(settings.images, network.spec)
        rr.quantize_network(network, path, patches, gate=False, deploy=settings.deploy)
    return path


def _torch(precision: str, **options: Any) -> Maker:
    def make(network: RestorationNetwork, settings: Settings, x: Tensor) -> Candidate:
        runner = TorchRunner(network, precision, settings.device, deploy=False, **options)
        name = "torch" + (" channels_last" if runner.memory_format == torch.channels_last else "")
        if "compile_mode" in options:
            name += f" compile {options['compile_mode']}"
        return Candidate(name, torch.__version__, runner.precision, runner)

    return make


def _onnx(network: RestorationNetwork, settings: Settings, precision: str = "fp32") -> Path:
    path = settings.folder / f"network-{precision}.onnx"
    if not path.exists():
        export_onnx(network, path, precision=precision, deploy=False)
    return path


def _onnxruntime(
    network: RestorationNetwork, settings: Settings, x: Tensor, precision: str = "fp32"
) -> Candidate:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("--compare onnxruntime needs it: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(_onnx(network, settings, precision)), options, providers=["CPUExecutionProvider"]
    )

    def call(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

    return Candidate("onnxruntime", onnxruntime.__version__, precision, call)


def _openvino_by_hand(network: RestorationNetwork, settings: Settings, x: Tensor) -> Candidate:
    """OpenVINO's own calls on the same file, as its documentation shows them."""
    openvino = load_module()

    inlined = inline_functions(_onnx(network, settings), settings.folder / "inlined.onnx")
    model = core().read_model(inlined)
    if not settings.dynamic:
        model.reshape(list(x.shape))
    compiled = core().compile_model(model, "CPU", compile_options(settings.precision))
    request = compiled.create_infer_request()

    def call(x: Tensor) -> Tensor:
        result = request.infer([x.numpy()], share_inputs=True)
        return torch.from_numpy(result[0])

    version = str(openvino.__version__)
    return Candidate("openvino by hand", version, precision_of(compiled), call)


MAKERS: dict[str, Maker] = {
    "torch": _torch("fp32"),
    "torch-channels-last": _torch("fp32", channels_last=True),
    "torch-compile": _torch("fp32", compile_mode="max-autotune"),
    "torch-fp16": _torch("fp16"),
    "torch-fp16-nchw": _torch("fp16", channels_last=False),
    "torch-fp16-compile": _torch("fp16", compile_mode="max-autotune"),
    "torch-bf16": _torch("bf16"),
    "torch-bf16-compile": _torch("bf16", compile_mode="max-autotune"),
    "onnxruntime": _onnxruntime,
    "onnxruntime-fp16": partial(_onnxruntime, precision="fp16"),
    "openvino": _runner("openvino"),
    "openvino-as-published": _runner("openvino", deploy=False),
    "openvino-fp16": _runner("openvino", precision="fp16"),
    "openvino-by-hand": _openvino_by_hand,
    "cuda": _runner("cuda"),
    "tensorrt": _runner("tensorrt"),
    "tensorrt_rtx": _runner("tensorrt_rtx"),
}


def photograph(height: int, width: int, batch: int) -> Tensor:
    """[batch, 3, height, width] in [0, 1]: scikit-image's astronaut, mirrored to fill the size."""
    try:
        from skimage import data

        picture = data.astronaut()
    except ImportError:
        picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    rows, columns = max(height - 512, 0), max(width - 512, 0)
    grown = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="symmetric")
    top, left = (grown.shape[0] - height) // 2, (grown.shape[1] - width) // 2
    crop = np.ascontiguousarray(grown[top : top + height, left : left + width])
    x = torch.from_numpy(crop).permute(2, 0, 1)[None].to(torch.float32).div(255)
    return x.expand(batch, -1, -1, -1).contiguous()


def main() -> int:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--model", help="a name from `restorert networks`; default: that of --weights, or hinet"
    )
    parser.add_argument("--weights", type=Path, help="checkpoint; default: seeded random weights")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16", "int8"), default="fp32")
    parser.add_argument("--fp16", dest="precision", action="store_const", const="fp16")
    parser.add_argument("--bf16", dest="precision", action="store_const", const="bf16")
    parser.add_argument(
        "--images", type=Path, help="folder to calibrate int8 on; default: the picture timed"
    )
    parser.add_argument(
        "--no-deploy", dest="deploy", action="store_false", help="the authors' layers everywhere"
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="engines that take any smaller size as well"
    )
    parser.add_argument("--size", nargs="+", metavar="WxH", help="default: 256x256")
    count = number(int, 1, 10**6)
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--runner", default="auto", help=f"one of {', '.join(runner_names())}")
    parser.add_argument(
        "--compare", default="torch", help=f"comma-separated, of: {', '.join(MAKERS)}; or none"
    )
    parser.add_argument("--repeats", type=count, default=20)
    parser.add_argument(
        "--seconds", type=number(float, 0), default=120, help="most time for one size"
    )
    parser.add_argument("--warmup", type=number(int, 0, 10**6), default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    return report.main(parser, run)


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)
    names = [] if options.compare == "none" else options.compare.split(",")
    for name in names:
        if name not in MAKERS:
            raise InputError(f"--compare knows {', '.join(MAKERS)}, not {name!r}")
    if options.runner not in runner_names():
        raise InputError(f"unknown runner {options.runner!r}; expected {', '.join(runner_names())}")
    sizes = [parse_size(text) for text in options.size or ["256x256"]]
    network = (
        rr.load_network(options.weights, name=options.model)
        if options.weights
        else rr.create_network(options.model or "hinet")
    )
    gpu = devices.cuda()
    report.print_header(console)
    if gpu is None and options.runner == "auto":
        console.print(
            "No NVIDIA GPU here: the OpenVINO runner on the CPU takes TensorRT's place"
            + (
                f"; {options.precision} is asked, the CPU runs what the table says."
                if options.precision != "fp32"
                else "."
            ),
            highlight=False,
            soft_wrap=True,
        )
    device = torch.device("cuda" if gpu else "cpu")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
        settings = Settings(
            options.precision, device, Path(folder), options.deploy, options.images, options.dynamic
        )
        for height, width in sizes:
            rows += _measure(console, network, settings, options, names, height, width)
    settings_json = {
        "model": network.spec.name,
        "precision": options.precision,
        "batch": options.batch,
        "warmup": options.warmup,
        "repeats": options.repeats,
        "deploy": options.deploy,
        "shapes": "any up to the size" if options.dynamic else "fixed",
        "weights": "random" if options.weights is None else options.weights.name,
        "transfers": "none: input and output on the device",
        "cuda_graphs": "TensorRT only",
        "l2": "cold" if gpu else "not applicable",
    }
    if options.precision == "int8":
        calibrated = options.images.name if options.images else "the picture timed"
        settings_json["calibrated_on"] = calibrated
    if options.json:
        report.write_json(options.json, "latency", settings_json, rows)
        console.print(f"written: {options.json}", highlight=False)
    return 0


def _measure(
    console: Console,
    network: RestorationNetwork,
    settings: Settings,
    options: argparse.Namespace,
    names: list[str],
    height: int,
    width: int,
) -> list[dict[str, Any]]:
    spec = network.spec
    picture = photograph(*spec.shape_for(height, width)[2:], options.batch)
    picture = picture[:, : spec.in_channels].contiguous()
    x = picture.to(settings.device)
    reference = TorchRunner(network, "fp32", settings.device, deploy=False)(x).cpu()
    candidates: list[Candidate] = []
    makers = [MAKERS[name] for name in names] + [_runner(options.runner)]
    for make in makers:
        with peak_memory(settings.device) as memory:
            candidate = make(network, settings, x)
            candidate.call(x)
            candidate.call(x)
        candidate.peak_bytes = memory.peak_bytes
        candidates.append(candidate)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("timing", total=options.repeats)
        with torch.inference_mode():
            timings = time_side_by_side(
                {str(i): partial(c.call, x) for i, c in enumerate(candidates)},
                device=settings.device,
                repeats=options.repeats,
                max_seconds=options.seconds,
                warmup=options.warmup,
                on_round=lambda done, _: progress.update(task, completed=done),
            )
    macs = count_macs(network, tuple(x.shape))
    paper = count_macs(network, spec.shape_for(256, 256))
    published = paper_parameters(spec.name)
    share = paper_macs_share(spec.name)
    console.print(
        f"{spec.name} {width}x{height}, batch {options.batch}: "
        f"{count_parameters(network) / 1e6:.2f} M parameters"
        f" (paper {f'{published:.2f} M' if published else 'gives none'}), "
        f"{macs.exact / 1e9:.1f} GMAC; at 256x256 {paper.exact / 1e9:.1f} exact, "
        f"{paper.paper / 1e9:.1f} as papers count{f', {share}' if share else ''}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(
        title=f"median of {len(timings['0'].samples)} after {options.warmup} warm-up calls, "
        "in turn in one process; input and output on the device"
    )
    for column in (
        "times faster",
        "runner",
        "runs in",
        "median ms",
        "p95",
        "p99",
        "frames/s",
        "peak MB",
        "PSNR to fp32 dB",
        "max error",
    ):
        table.add_column(column, justify="left" if column in ("runner", "runs in") else "right")
    base = timings["0"].median
    rows = []
    for index, candidate in enumerate(candidates):
        timing = timings[str(index)]
        output = candidate.call(x).cpu()
        row = {
            "size": f"{width}x{height}",
            "runner": candidate.name,
            "version": candidate.version,
            "precision": candidate.precision,
            "times_faster": base / timing.median,
            **timing.to_json(),
            "frames_per_second": options.batch / timing.median,
            "peak_mb": candidate.peak_bytes / 1e6,
            "psnr_to_fp32_db": psnr(output, reference),
            "max_error": max_error(output, reference),
            "gmac": macs.exact / 1e9,
            "parameters": count_parameters(network),
        }
        rows.append(row)
        table.add_row(
            f"{row['times_faster']:.2f}x",
            f"{candidate.name} {candidate.version.split('-')[0]}",
            candidate.precision,
            f"{row['median_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['frames_per_second']:.2f}",
            f"{row['peak_mb']:.0f}",
            "equal" if row["max_error"] == 0 else f"{row['psnr_to_fp32_db']:.1f}",
            f"{row['max_error']:.1e}",
        )
    console.print(table)
    return rows


if __name__ == "__main__":
    sys.exit(main())
