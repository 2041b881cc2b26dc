"""Draws docs/images/architecture.svg: python scripts/draw_architecture.py."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).parents[1] / "docs/images/architecture.svg"

# Top to bottom; in a floor left to right.
FLOORS = [
    [("cli", "parses the command line, calls the library, prints")],
    [
        ("runtime", "what a user holds: Engine,|build_engine, load_engine"),
        ("restore", "pictures, folders, videos;|tiles and self-ensembles"),
        ("training", "losses, degradations,|the trainer, recipes"),
        ("testing", "timers and cases shared by|tests and benchmarks"),
    ],
    [
        ("export", "network to ONNX"),
        ("quantize", "INT8: calibration, Q/DQ,|the quality gate"),
        ("engine", "what an engine file is:|request, sidecar, cache"),
        ("backends", "TensorRT, CUDA, OpenVINO,|torch: one folder each"),
    ],
    [
        ("pictures", "picture files, pixels,|tiles, padding"),
        ("ops", "fused ops: torch, native|kernels, ONNX function"),
        ("networks", "one family per file,|and the registry"),
        ("weights", "checkpoints: read safely,|recognised"),
    ],
    [
        (
            "ground floor",
            "version, errors, files, precision, progress, psnr, record, spec, terminal, "
            "command_line",
        )
    ],
]
PICTURE = [
    ("cli", "run_restore", "reads the options"),
    ("runtime", "EngineOnDemand", "nothing is built yet"),
    ("restore", "restore_image", "from file to file"),
    ("pictures", "read_image", "pixels and metadata"),
    ("restore", "restore_picture", "cuts tiles, if any"),
    ("runtime", "Engine", "to a tensor, pads, splits"),
    ("backends", "Runner", "tensor in, tensor out"),
    ("runtime", "Engine", "crops, checks, rounds"),
    ("restore", "restore_picture", "averages the tiles"),
    ("pictures", "write_image", "with the metadata"),
]
WEIGHT = [
    ("file", "HINet-GoPro.pth", "as the authors ship it"),
    ("weights", "load_network", "runs nothing in the file"),
    ("networks", "RestorationNetwork", "the authors' layers"),
    ("networks", "deploy", "exact rewrites"),
    ("export", "export_onnx", "one file, cached"),
    ("quantize", "quantize_network", "for int8 only"),
    ("engine", "BuildRequest", "all that it follows from"),
    ("backends", "Backend.build", "ONNX to engine file"),
    ("engine", "EngineCache", "the file and its sidecar"),
    ("runtime", "load_engine", "checks the sidecar first"),
]
# Fill and edge, in the light scheme and in the dark one.
COLOURS = {
    "pictures": ("#ddf4ff", "#0969da", "#0c2d4d", "#58a6ff"),
    "ops": ("#fff8c5", "#9a6700", "#3b2c05", "#d29922"),
    "networks": ("#dafbe1", "#1a7f37", "#0f3019", "#3fb950"),
    "weights": ("#d8f3ec", "#0f766e", "#0b302b", "#2dd4bf"),
    "export": ("#fff1e5", "#bc4c00", "#3d1f06", "#f0883e"),
    "quantize": ("#ffe7df", "#b83b12", "#421b0c", "#ff8f6b"),
    "engine": ("#ffebe9", "#cf222e", "#45141a", "#ff7b72"),
    "backends": ("#ffeff7", "#bf3989", "#42142f", "#f778ba"),
    "runtime": ("#fbefff", "#8250df", "#2b1a4d", "#bc8cff"),
    "restore": ("#e4e9ff", "#3f56c9", "#1a2452", "#8ea2ff"),
    "cli": ("#eaeef2", "#424a53", "#2a3038", "#afb8c1"),
    "other": ("#f6f8fa", "#818b98", "#1c2128", "#768390"),
}
WIDTH, MARGIN = 960, 18
INNER = WIDTH - 2 * MARGIN
SANS = "-apple-system, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, 'Liberation Mono', monospace"


def _style() -> str:
    def scheme(paper: str, ink: str, faint: str, which: int) -> str:
        rooms = "".join(
            f".{name}{{fill:{c[which]};stroke:{c[which + 1]}}}.tag-{name}{{fill:{c[which + 1]}}}"
            for name, c in COLOURS.items()
        )
        return (
            f".paper{{fill:{paper}}}text{{fill:{ink}}}.faint{{fill:{faint}}}"
            f".arrow{{stroke:{faint};fill:none}}.head{{fill:{faint}}}{rooms}"
        )

    return (
        f"text{{font:12px {SANS}}}.title{{font-size:17px;font-weight:600}}"
        f".name{{font-size:14px;font-weight:600}}.code{{font:12.5px {MONO}}}"
        ".tag{font-size:11px;font-weight:600}.arrow{stroke-width:1.6}"
        + scheme("#ffffff", "#1f2328", "#59636e", 0)
        + f"@media (prefers-color-scheme:dark){{{scheme('#0d1117', '#e6edf3', '#9198a1', 2)}}}"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    colour = colour if colour in COLOURS else "other"
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {size} rx="7" class="{colour}" stroke-width="1.3"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" class="arrow" marker-end="url(#head)"/>'


def _house(y: float) -> list[str]:
    height, gap, drawn = 62.0, 8.0, []
    for floor in FLOORS:
        low = height if len(floor) > 1 else 46.0
        width = (INNER - gap * (len(floor) - 1)) / len(floor)
        for i, (name, text) in enumerate(floor):
            x = MARGIN + i * (width + gap)
            lines = text.split("|")
            drawn.append(_box(x, y, width, low, name))
            drawn.append(_text(x + width / 2, y + 20, name, "name"))
            for j, line in enumerate(lines):
                drawn.append(_text(x + width / 2, y + 37 + 15 * j, line))
        y += low + gap
    return drawn


def _path(steps: list[tuple[str, str, str]], y: float) -> list[str]:
    """Five steps to the right, then five to the left below them."""
    half, height, between = len(steps) // 2, 68.0, 30.0
    width = (INNER - between * (half - 1)) / half
    drawn = []
    for i, (room, name, text) in enumerate(steps):
        column = i if i < half else len(steps) - 1 - i
        x, top = MARGIN + column * (width + between), y + (i >= half) * (height + between)
        drawn.append(_box(x, top, width, height, room))
        tag = room if room in COLOURS else "other"
        drawn.append(_text(x + width / 2, top + 17, room, f"tag tag-{tag}"))
        drawn.append(_text(x + width / 2, top + 37, name, "code"))
        drawn.append(_text(x + width / 2, top + 56, text))
        middle = top + height / 2
        if i == half - 1:
            drawn.append(_arrow(x + width / 2, top + height + 2, x + width / 2, top + height + 24))
        elif i < half:
            drawn.append(_arrow(x + width + 3, middle, x + width + between - 7, middle))
        elif column:
            drawn.append(_arrow(x - 3, middle, x - between + 7, middle))
    return drawn


def draw() -> str:
    """The drawing."""
    height = 850
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>The rooms of restorert, one picture's path and one weight's path</title>",
        f"<style>{_style()}</style>",
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="5" refY="4" orient="auto">'
        '<path d="M0 0.5L7 4L0 7.5z" class="head"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" class="paper"/>',
        _text(MARGIN, 32, "The rooms", "title", "start"),
        _text(124, 32, "each imports only from rooms below it or to its left", "faint", "start"),
        *_house(46),
        _text(MARGIN, 402, "One picture", "title", "start"),
        _text(124, 402, "restorert restore in.png out.png", "code faint", "start"),
        *_path(PICTURE, 416),
        _text(MARGIN, 626, "One weight", "title", "start"),
        _text(124, 626, "from deploy on: what the first picture makes EngineOnDemand do, "
              "and rr.build_engine at once", "faint", "start"),
        *_path(WEIGHT, 640),
        _text(MARGIN, 830, "load_engine gives the backend's Runner, which the picture's path calls",
              "faint", "start"),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
