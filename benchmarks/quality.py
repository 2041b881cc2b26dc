"""Measure the shipped network on pictures that it has never seen, beside BM3D and non-local means.

    python benchmarks/quality.py [--json FILE] [--picture FILE] [--chart FILE] [--without-bm3d]

scikit-image's astronaut, coffee, cat and rocket: white Gaussian noise of sigma 25, seeded, neither
clamped nor rounded, as the literature measures; and JPEG of quality 40. PSNR of results clamped to
[0, 1]. BM3D (PyPI `bm3d`) and non-local means (scikit-image) are told sigma, and non-local means
the filter strength that suits these four pictures best; the network is told nothing. Every method
runs in this one process, in turn, on whole pictures; a time is the median of its calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import report
import restorert as rr
from restorert.command_line import number
from restorert.errors import InputError
from restorert.files import check_output, replace_atomically
from restorert.pictures.degradations import GaussianNoise, Jpeg
from restorert.pictures.files import check_target, write_image
from restorert.pictures.picture import Picture

SIGMA, QUALITY = 25.0, 40
PICTURES = ("astronaut", "coffee", "cat", "rocket")
# Top, left of the square of each picture that the sheet shows.
CROPS = {"astronaut": (60, 130), "coffee": (110, 330), "cat": (60, 120), "rocket": (180, 240)}
CROP = 160

Floats = NDArray[np.float32]
Method = Callable[[Floats], NDArray[Any]]


def main() -> int:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--weights", default="hinet-tiny", metavar="FILE", help="of another network"
    )
    parser.add_argument("--runner", default="openvino", help="default: openvino")
    parser.add_argument(
        "--precision",
        default="fp32,bf16,bf16x4,bf16x8",
        help="comma-separated; bf16x4 is a self-ensemble of four runs",
    )
    parser.add_argument(
        "--repeats", type=number(int, 1, 10**6), default=5, help="calls timed of what is fast"
    )
    parser.add_argument("--without-bm3d", action="store_true", help="it takes minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as well")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="input, output, target")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="PSNR over time, by matplotlib")
    return report.main(parser, run)


def run(options: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.picture:
        check_target(options.picture, Picture(np.zeros((1, 1, 3), np.uint8)))
    if options.chart:
        check_output(options.chart)
    report.print_header(console)
    clean, noisy = held_out()
    jpeg = Jpeg((QUALITY, QUALITY), 0.0)
    packed = {n: jpeg(p, np.random.default_rng(0)) for n, p in clean.items()}
    network = rr.load_network(options.weights)
    side = max(max(p.shape[:2]) for p in clean.values())

    rows: list[dict[str, Any]] = []
    shown: dict[str, Floats] = {}
    forms = options.precision.split(",")
    for form in forms:
        precision, _, members = form.partition("x")
        if members not in ("", "2", "4", "8"):
            raise InputError(f"--precision takes names such as bf16, or bf16x8, not {form!r}")
        engine = rr.build_engine(
            network, precision=precision, shape=(1, 3, side, side), runner=options.runner
        )
        console.print(engine.describe(), highlight=False, soft_wrap=True)
        label = f"{network.spec.name}, {precision}" + (f", {members} runs" if members else "")
        ensemble = rr.SelfEnsemble(engine, int(members or 1))

        def restore(
            picture: Floats, engine: rr.SelfEnsemble = ensemble, one: rr.Engine = engine
        ) -> NDArray[Any]:
            planes = np.ascontiguousarray(picture.transpose(2, 0, 1))[None]
            run: Any = one if engine.count == 1 else engine
            return np.asarray(run(planes))[0].transpose(1, 2, 0)

        for task, degraded in (("noise", noisy), ("jpeg", packed), ("clean", clean)):
            rows += _measure(label, task, restore, degraded, clean, options.repeats, warm=True)
        if form == forms[0]:
            shown = {name: np.clip(restore(noisy[name]), 0, 1) for name in PICTURES}
    rows += _non_local_means(noisy, clean)
    if not options.without_bm3d:
        rows += _measure("BM3D", "noise", _bm3d(), noisy, clean, 1, warm=False)
    for task, degraded in (("noise", noisy), ("jpeg", packed)):
        for name in PICTURES:
            before = psnr(degraded[name], clean[name])
            rows.append({"method": "input", "task": task, "picture": name, "psnr_db": before})
    _print(console, rows)
    if options.json:
        settings = {"sigma": SIGMA, "jpeg_quality": QUALITY, "weights": str(options.weights)}
        report.write_json(options.json, "quality", settings, rows)
    if options.picture:
        write_image(options.picture, Picture(_sheet(noisy, shown, clean)), quality=90)
    if options.chart:
        _chart(options.chart, rows)
    return 0


def held_out() -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The pictures, [H, W, 3] in [0, 1], without and with noise of `SIGMA`."""
    clean = {name: np.float32(getattr(skimage.data, name)()) / np.float32(255) for name in PICTURES}
    noise = GaussianNoise((SIGMA, SIGMA), rounded=0.0)
    noisy = {n: noise(p, np.random.default_rng(i)) for i, (n, p) in enumerate(clean.items())}
    return clean, noisy


def psnr(restored: NDArray[Any], clean: NDArray[Any]) -> float:
    """In dB, of pictures in [0, 1]; the restored one is clamped first."""
    error = np.mean((np.clip(restored, 0, 1).astype(np.float64) - clean) ** 2)
    return float(-10 * np.log10(max(error, 1e-12)))


def _measure(
    label: str,
    task: str,
    method: Method,
    degraded: dict[str, Floats],
    clean: dict[str, Floats],
    repeats: int,
    *,
    warm: bool,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, picture in degraded.items():
        if warm:
            method(picture)
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            restored = method(picture)
            seconds.append(time.perf_counter() - began)
        rows.append(
            {
                "method": label,
                "task": task,
                "picture": name,
                "psnr_db": psnr(restored, clean[name]),
                "seconds": float(np.median(seconds)),
            }
        )
    return rows


def _bm3d() -> Method:
    try:
        import bm3d
    except ImportError:
        raise InputError(
            "the package bm3d is missing: pip install bm3d, or --without-bm3d"
        ) from None
    return lambda noisy: np.asarray(bm3d.bm3d_rgb(noisy.astype(np.float64), SIGMA / 255))


def _non_local_means(noisy: dict[str, Floats], clean: dict[str, Floats]) -> list[dict[str, Any]]:
    """With the filter strength, of four in sigmas, that gives these pictures the best mean."""
    from skimage.restoration import denoise_nl_means

    sigma = SIGMA / 255
    tried = []
    for strength in (0.4, 0.6, 0.8, 1.0):

        def method(picture: Floats, h: float = strength * sigma) -> NDArray[Any]:
            return np.asarray(
                denoise_nl_means(
                    picture,
                    h=h,
                    sigma=sigma,
                    patch_size=5,
                    patch_distance=6,
                    fast_mode=True,
                    channel_axis=-1,
                )
            )

        label = f"non-local means, h {strength:g} sigma"
        tried.append(_measure(label, "noise", method, noisy, clean, 1, warm=False))
    return max(tried, key=lambda rows: float(np.mean([row["psnr_db"] for row in rows])))


def _print(console: Console, rows: list[dict[str, Any]]) -> None:
    titles = {
        "noise": f"sigma {SIGMA:g}",
        "jpeg": f"JPEG quality {QUALITY}",
        "clean": "untouched pictures",
    }
    for task, title in titles.items():
        table = Table(title=f"{title}: PSNR in dB, seconds for the four pictures")
        for heading in ("method", *PICTURES, "mean", "seconds", "times faster than BM3D"):
            table.add_column(heading)
        of_task = [row for row in rows if row["task"] == task]
        seconds = {
            method: sum(row["seconds"] for row in of_task if row["method"] == method)
            for method in dict.fromkeys(row["method"] for row in of_task if "seconds" in row)
        }
        for method in dict.fromkeys(row["method"] for row in of_task):
            found = {row["picture"]: row["psnr_db"] for row in of_task if row["method"] == method}
            took, slowest = seconds.get(method), seconds.get("BM3D")
            table.add_row(
                method,
                *(f"{found[name]:.2f}" for name in PICTURES),
                f"{np.mean(list(found.values())):.2f}",
                "-" if took is None else f"{took:.3f}",
                "-" if took is None or slowest is None else f"{slowest / took:.1f}",
            )
        console.print(table)


def _chart(path: Path, rows: list[dict[str, Any]]) -> None:
    """Mean PSNR at `SIGMA` over the seconds of a call: higher and further left is better."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("--chart needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    timed = [row for row in rows if row["task"] == "noise" and "seconds" in row]
    for place, method in enumerate(dict.fromkeys(row["method"] for row in timed)):
        of_method = [row for row in timed if row["method"] == method]
        seconds = float(np.sum([row["seconds"] for row in of_method]))
        decibels = float(np.mean([row["psnr_db"] for row in of_method]))
        ours = method.startswith("hinet")
        axes.scatter(seconds, decibels, s=60, color="tab:blue" if ours else "tab:gray", zorder=2)
        # Above and below in turn: what differs by runs alone lies close together.
        offset = (0, 10) if place % 2 else (0, -20)
        text = method.replace(", ", "\n", 1) if ours and not place % 2 else method
        axes.annotate(
            text, (seconds, decibels), offset, textcoords="offset points", ha="center", fontsize=8,
            va="bottom" if place % 2 else "center",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.2)
    axes.set_xlabel("seconds for the four pictures, 2 CPU cores")
    axes.set_ylabel(f"PSNR in dB, noise of sigma {SIGMA:g}")
    axes.grid(alpha=0.3, which="both")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _sheet(
    noisy: dict[str, Floats], restored: dict[str, Floats], clean: dict[str, Floats]
) -> NDArray[np.uint8]:
    """A row a picture: input, output, target, with white between them."""
    bar = np.ones((CROP, 4, 3), np.float32)
    rows: list[Floats] = []
    for name in PICTURES:
        top, left = CROPS[name]
        cut = [p[name][top : top + CROP, left : left + CROP] for p in (noisy, restored, clean)]
        if rows:
            rows.append(np.ones((4, 3 * CROP + 8, 3), np.float32))
        rows.append(np.concatenate([cut[0], bar, cut[1], bar, cut[2]], axis=1))
    return np.rint(np.clip(np.concatenate(rows), 0, 1) * 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
