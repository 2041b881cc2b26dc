"""What INT8 costs by tool: our calibration, ONNX Runtime's, NNCF's and ModelOpt's, side by side.

    python benchmarks/int8.py --images DIR [--tools restorert,onnxruntime,nncf,modelopt]
    python benchmarks/int8.py --by-condition [--held-out FILE ...]

The second form measures the network's own INT8 engine against its float32, in every condition that
its inputs may be in, on the four pictures of quality.py and on photographs of yours.

Each tool gets the same float32 network and the same noisy patches, and is asked for what TensorRT
takes: symmetric int8 with zero point 0, weights an output channel. Its file is then computed as it
is written, by ONNX Runtime without integer kernels, on the four pictures of quality.py at sigma 25,
which no tool has seen. fp16 and bf16 are the network itself in PyTorch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import report
import restorert as rr
from quality import PICTURES, SIGMA, held_out, psnr
from restorert.command_line import number
from restorert.errors import InputError
from restorert.export import export_onnx, inline_functions
from restorert.export.onnx_export import cast_network
from restorert.networks import RestorationNetwork
from restorert.pictures.degradations import degradation
from restorert.pictures.padding import pad
from restorert.quantize import METHODS, Patches, quality_table
from restorert.quantize.calibration_file import figures
from restorert.quantize.measure import compare
from restorert.quantize.session import onnx_session

Planes = NDArray[np.float32]
Restore = Callable[[Planes], Planes]


@dataclass(frozen=True)
class Case:
    """A network at one precision.

    Attributes:
        tool, settings: who made it, and how.
        seconds: that making it took.
        int8_share: of the multiply-accumulates, where the tool tells it.
        restore: [1, 3, H, W] to the same.
    """

    tool: str
    settings: str
    seconds: float
    int8_share: float | None
    restore: Restore


@dataclass(frozen=True)
class Work:
    """What every tool gets; ``plain`` is the ONNX file in float32 without local functions."""

    network: RestorationNetwork
    patches: Patches
    plain: Path
    folder: Path


def _halves(work: Work) -> Iterator[Case]:
    for precision in ("fp32", "fp16", "bf16"):
        cast = cast_network(work.network, precision)

        def restore(x: Planes, cast: torch.nn.Module = cast) -> Planes:
            with torch.inference_mode():
                return np.asarray(cast(torch.from_numpy(x)).float())

        yield Case("torch", precision, 0.0, None, restore)


def _restorert(work: Work) -> Iterator[Case]:
    settings = [(method, True) for method in METHODS] + [("mse", False)]
    for method, corrected in settings:
        path = work.folder / "restorert.onnx"
        began = time.perf_counter()
        made = rr.quantize_network(
            work.network, path, work.patches, method=method, bias_correction=corrected, gate=False
        )
        took = time.perf_counter() - began
        said = method if corrected else f"{method}, no bias correction"
        yield Case("restorert", said, took, made.int8_share, _session(path))


class _Reader:
    """The patches, as ONNX Runtime's and ModelOpt's calibrations ask for them."""

    def __init__(self, patches: Patches) -> None:
        self._feeds = iter([{"input": x} for x in patches.inputs])

    def get_next(self) -> dict[str, Planes] | None:
        return next(self._feeds, None)


def _onnxruntime(work: Work) -> Iterator[Case]:
    from onnxruntime import quantization as q

    prepared = work.folder / "prepared.onnx"
    q.shape_inference.quant_pre_process(str(work.plain), str(prepared), skip_symbolic_shape=True)
    for method in ("MinMax", "Percentile", "Entropy"):
        path = work.folder / "onnxruntime.onnx"
        began = time.perf_counter()
        q.quantize_static(
            str(prepared),
            str(path),
            _Reader(work.patches),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=q.CalibrationMethod[method],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        yield Case("onnxruntime", method, time.perf_counter() - began, None, _session(path))


def _nncf(work: Work) -> Iterator[Case]:
    import nncf
    import onnx

    began = time.perf_counter()
    quantized = nncf.quantize(
        onnx.load(work.plain),
        nncf.Dataset([{"input": x} for x in work.patches.inputs]),
        preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric
        target_device=nncf.TargetDevice.ANY,
        subset_size=len(work.patches.inputs),
    )
    took = time.perf_counter() - began
    path = work.folder / "nncf.onnx"
    onnx.save(quantized, path)
    yield Case("nncf", "fast bias correction", took, None, _session(path))


def _modelopt(work: Work) -> Iterator[Case]:
    from modelopt.onnx import quantization

    for method in ("entropy", "max"):
        path = work.folder / "modelopt.onnx"
        began = time.perf_counter()
        quantization.quantize(
            str(work.plain),
            quantize_mode="int8",
            calibration_data={"input": np.concatenate(work.patches.inputs)},
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(path),
        )
        yield Case("modelopt", method, time.perf_counter() - began, None, _session(path))


TOOLS: dict[str, Callable[[Work], Iterator[Case]]] = {
    "restorert": _restorert,
    "onnxruntime": _onnxruntime,
    "nncf": _nncf,
    "modelopt": _modelopt,
}


def _session(path: Path) -> Restore:
    import onnx

    session = onnx_session(onnx.load(path))
    return lambda x: np.asarray(session.run(None, {"input": x})[0])


def main() -> int:
    parser = report.parser(__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--images", type=Path, metavar="DIR", help="to calibrate on")
    task.add_argument("--by-condition", action="store_true", help="the shipped INT8, by condition")
    parser.add_argument(
        "--held-out",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --by-condition: a photograph to measure on as well, its middle 576x384 at the "
        "size at which it just covers that",
    )
    parser.add_argument("--weights", default="hinet-tiny", help="default: the shipped network")
    parser.add_argument(
        "-n", "--patches", type=number(int, 1, 10**6), default=64, help="of 256x256; default 64"
    )
    parser.add_argument(
        "--tools", default="restorert,onnxruntime", help=f"comma-separated, of {', '.join(TOOLS)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    return report.main(parser, run)


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    tools = options.tools.split(",")
    for tool in tools:
        if tool not in TOOLS:
            raise InputError(f"--tools knows {', '.join(TOOLS)}, not {tool!r}")
    report.print_header(console)
    network = rr.load_network(options.weights)
    if options.by_condition:
        return _by_condition(options, console, network)
    patches = rr.read_patches(
        options.images, network.spec, options.patches, conditions=[f"sigma {SIGMA:g}"]
    )
    clean, noisy = held_out()
    rows: list[dict[str, Any]] = []
    reference: dict[str, Planes] = {}
    with tempfile.TemporaryDirectory(prefix="restorert-") as name:
        folder = Path(name)
        exported = folder / "network.onnx"
        export_onnx(network, exported, deploy=False)
        plain = inline_functions(exported, folder / "plain.onnx")
        work = Work(network, patches, plain, folder)
        for make in (_halves, *(TOOLS[tool] for tool in tools)):
            try:
                for case in make(work):
                    found = {p: _restore(case, network, noisy[p]) for p in PICTURES}
                    reference = reference or found
                    rows.append(_row(case, found, reference, clean))
                    console.print(f"{case.tool}, {case.settings}: {rows[-1]['drop_db']:.3f} dB")
            except ImportError as error:
                raise InputError(f"{error}: install it, or leave it out with --tools") from None
    _print(console, rows)
    if options.json:
        settings = {
            "weights": str(options.weights),
            "sigma": SIGMA,
            "patches": len(patches.inputs),
            "calibration_pictures": sorted(patches.pictures),
        }
        report.write_json(options.json, "int8", settings, rows)
    return 0


def _by_condition(
    options: argparse.Namespace, console: Console, network: RestorationNetwork
) -> int:
    pictures = held_out()[0] | {path.stem: _middle(path) for path in options.held_out}
    multiple = network.spec.size_multiple
    cropped = {
        name: p[: p.shape[0] // multiple * multiple, : p.shape[1] // multiple * multiple]
        for name, p in pictures.items()
    }
    sides = [max(p.shape[axis] for p in cropped.values()) for axis in (0, 1)]
    engine = rr.build_engine(network, precision="int8", shape=(1, 3, *sides), runner="openvino")
    console.print(engine.describe(), highlight=False, soft_wrap=True)
    conditions = [name for name in network.spec.conditions if name != "given"]
    keys = [(condition, name) for condition in conditions for name in cropped]
    clean = {name: np.ascontiguousarray(p.transpose(2, 0, 1))[None] for name, p in cropped.items()}
    inputs = [
        np.ascontiguousarray(
            degradation(condition)(cropped[name], np.random.default_rng(index)).transpose(2, 0, 1)
        )[None]
        for index, (condition, name) in enumerate(keys)
    ]
    patches = Patches(
        tuple(inputs),
        tuple(clean[name] for _, name in keys),
        tuple(condition for condition, _ in keys),
        {},
    )
    found = [np.asarray(engine(x)) for x in inputs]
    qualities = compare(found, network, patches)
    console.print("\n".join(quality_table(qualities)), highlight=False, soft_wrap=True)
    if options.json:
        rows = [{"condition": name, **values} for name, values in figures(qualities).items()]
        settings = {"weights": str(options.weights), "pictures": list(cropped)}
        report.write_json(options.json, "int8-conditions", settings, rows)
    return 0


def _middle(path: Path) -> Planes:
    from PIL import Image

    rows, columns = 384, 576
    image = Image.open(path).convert("RGB")
    scale = max(columns / image.width, rows / image.height)
    size = round(image.width * scale), round(image.height * scale)
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    return np.float32(pixels[top : top + rows, left : left + columns]) / np.float32(255)


def _restore(case: Case, network: RestorationNetwork, noisy: Planes) -> Planes:
    height, width = noisy.shape[:2]
    rows, columns = network.spec.shape_for(height, width)[2:]
    x = torch.from_numpy(np.ascontiguousarray(noisy.transpose(2, 0, 1)))[None]
    padded = pad(x, rows, columns, network.spec.padding_mode).numpy()
    return case.restore(padded)[0, :, :height, :width].transpose(1, 2, 0)


def _row(
    case: Case,
    found: dict[str, Planes],
    reference: dict[str, Planes],
    clean: dict[str, Planes],
) -> dict[str, Any]:
    decibels = {name: psnr(found[name], clean[name]) for name in PICTURES}
    drops = [psnr(reference[name], clean[name]) - decibels[name] for name in PICTURES]
    shifts = [float((found[name] - reference[name]).mean()) * 255 for name in PICTURES]
    return {
        "tool": case.tool,
        "settings": case.settings,
        "psnr_db": {**decibels, "mean": float(np.mean(list(decibels.values())))},
        "drop_db": float(np.mean(drops)),
        "worst_drop_db": max(drops),
        "mean_shift_levels": max(shifts, key=abs),
        "int8_share": case.int8_share,
        "seconds": case.seconds,
    }


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"sigma {SIGMA:g}, four pictures that no tool has seen")
    for heading in (
        "tool",
        "settings",
        "drop dB",
        "worst picture",
        "PSNR dB",
        "shift to fp32, levels",
        "MACs in int8",
        "seconds",
    ):
        table.add_column(heading, justify="left" if heading in ("tool", "settings") else "right")
    for row in rows:
        share = row["int8_share"]
        table.add_row(
            row["tool"],
            row["settings"],
            f"{row['drop_db']:.3f}",
            f"{row['worst_drop_db']:.3f}",
            f"{row['psnr_db']['mean']:.3f}",
            f"{row['mean_shift_levels']:+.3f}",
            "-" if share is None else f"{share:.1%}",
            f"{row['seconds']:.1f}" if row["seconds"] else "-",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
