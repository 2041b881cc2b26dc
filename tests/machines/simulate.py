"""The tests that compare numbers, on each of several CPUs that this one stands in for.

    python tests/machines/simulate.py [NAME ...] [-- PYTEST ARGUMENTS]

Another CPU sums in another order: other vector widths, other kernels of oneDNN, MKL, OpenVINO, ONNX
Runtime and our own ops, another share of threads. Variables do not simulate that: they reach torch
alone, and half of OpenVINO (ONEDNN_MAX_CPU_ISA=AVX2 takes AVX-512 from its oneDNN while the rest of
it counts on AVX-512, and transposed convolutions do not compile). So the CPUID instruction itself
is answered anew: see cpuid.c. Where that cannot be done, torch's variables have to do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2

# Folders rather than a marker, so that a new op, network or test is among them by itself. Skipped
# is what computes nothing here, or the same everywhere: builds for TensorRT, emulated kernels, C++
# tests, readers of checkpoints. Pictures and the command line add no arithmetic of theirs, videos a
# product with a matrix of 3 x 3, whose tests allow whole levels.
FOLDERS = ("ops", "native", "networks", "training", "quantize", "runtime", "export", "weights")
SKIPPED = ("tensorrt", "emulated", "native_cpp", "plugin", "tensorflow", "checkpoint")

# Flags by their names in /proc/cpuinfo, and their places in CPUID: leaf.subleaf.register.bit, hex.
AVX = {"avx": "1.0.c.1c", "fma": "1.0.c.c", "f16c": "1.0.c.1d", "avx2": "7.0.b.5"}
AVX512 = {
    "avx512f": "7.0.b.10",
    "avx512dq": "7.0.b.11",
    "avx512ifma": "7.0.b.15",
    "avx512pf": "7.0.b.1a",
    "avx512er": "7.0.b.1b",
    "avx512cd": "7.0.b.1c",
    "avx512bw": "7.0.b.1e",
    "avx512vl": "7.0.b.1f",
    "avx512vbmi": "7.0.c.1",
    "avx512_vbmi2": "7.0.c.6",
    "avx512_bitalg": "7.0.c.c",
    "avx512_vpopcntdq": "7.0.c.e",
}
# Dot products of integers, and bfloat16, float16 and tiles.
NEWER = {
    "avx512_vnni": "7.0.c.b",
    "avx512_4vnniw": "7.0.d.2",
    "avx512_4fmaps": "7.0.d.3",
    "avx512_vp2intersect": "7.0.d.8",
    "amx_bf16": "7.0.d.16",
    "avx512_fp16": "7.0.d.17",
    "amx_tile": "7.0.d.18",
    "amx_int8": "7.0.d.19",
    "avx_vnni": "7.1.a.4",
    "avx512_bf16": "7.1.a.5",
    "amx_fp16": "7.1.a.15",
    "avx_ifma": "7.1.a.17",
    "avx_vnni_int8": "7.1.d.4",
    "avx_ne_convert": "7.1.d.5",
    "amx_complex": "7.1.d.8",
    "avx_vnni_int16": "7.1.d.a",
    "avx10": "7.1.d.13",
}


@dataclass(frozen=True)
class Machine:
    """A CPU that other people have.

    Attributes:
        what: it is like.
        threads: of torch.
        lacks: flags, and their places in CPUID.
        vendor: its twelve letters, where they are others than this CPU's.
        variables: what comes nearest where CPUID cannot be answered anew.
        cannot: tests of what torch does not do there.
    """

    what: str
    threads: int
    lacks: dict[str, str] = field(default_factory=dict)
    vendor: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    cannot: tuple[str, ...] = ()


MACHINES = {
    "sse4": Machine(
        "a CPU with no AVX",
        1,
        AVX | AVX512 | NEWER,
        variables={"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        # pixel_shuffle and convolutions of channels-last pictures need AVX2
        cannot=(
            "test_each_recipe_starts",
            "test_strided_pictures",
            "test_the_reported_psnr_is_of",
            "test_channels_last_has_no_layout",
        ),
    ),
    "avx2": Machine(
        "a desktop CPU with AVX2",
        4,
        AVX512 | NEWER,
        variables={"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    ),
    "avx512": Machine(
        "a first CPU with AVX-512, of no integer dot products and no bfloat16",
        2,
        NEWER,
        variables={"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    ),
    "amd": Machine(
        "a CPU made by AMD, for which MKL has other kernels",
        4,
        {flag: place for flag, place in NEWER.items() if not re.search("512_(vnni|bf16)", flag)},
        "AuthenticAMD",
    ),
    "this": Machine("this CPU", 1),
}

SEEN = """
import torch
seen = [f"torch {torch.backends.cpu.get_cpu_capability()}", f"{torch.get_num_threads()} threads"]
try:
    from openvino import Core
    seen.append("OpenVINO " + " ".join(Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
except ImportError:
    pass
print(", ".join(seen))
"""


def preload(build: Path) -> Path | None:
    """cpuid.c, compiled; None without a compiler, or where CPUID cannot be answered anew."""
    library = build / "cpuid.so"
    build.mkdir(parents=True, exist_ok=True)
    source = str(Path(__file__).with_name("cpuid.c"))
    try:
        command = ["cc", "-O1", "-Wall", "-shared", "-fPIC", source, "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library)}
        subprocess.run([sys.executable, "-c", ""], env=environment, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return library


def variables(machine: Machine, library: Path | None, folder: Path) -> dict[str, str]:
    """Under which a process runs as on ``machine``; files go to ``folder``."""
    # tests/conftest.py divides the threads by the workers
    chosen = {"OMP_NUM_THREADS": str(machine.threads * WORKERS)}
    if not (machine.lacks or machine.vendor):
        return chosen
    if library is None:
        return chosen | machine.variables
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    for flag in machine.lacks:
        text = re.sub(rf"\b{flag}\b ?", "", text)
    if machine.vendor:
        text = re.sub(r"(?m)^(vendor_id\s*: ).*$", rf"\g<1>{machine.vendor}", text)
    cpuinfo = folder / "cpuinfo"
    cpuinfo.write_text(text, encoding="utf-8")
    return chosen | {
        "LD_PRELOAD": str(library),
        "SIMULATED_HIDDEN": " ".join(machine.lacks.values()),
        "SIMULATED_VENDOR": machine.vendor,
        "SIMULATED_CPUINFO": str(cpuinfo),
    }


def main(arguments: list[str]) -> int:
    """Run the tests on the machines that are named, or on all; the number of those that fail."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names, more = arguments[:split] or list(MACHINES), arguments[split + 1 :]
    if unknown := [name for name in names if name not in MACHINES]:
        print(f"no machine {unknown[0]!r}; there are {', '.join(MACHINES)}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(WORKERS)]
    command += more or [f"tests/{folder}" for folder in FOLDERS]
    library = preload(ROOT / "build" / "machines")
    if library is None:
        print("CPUID cannot be answered anew here: only torch's kernels are another machine's")
    told: dict[str, str] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | variables(MACHINES[name], library, Path(folder))
            print(f"\n==== {name}: {MACHINES[name].what}", flush=True)
            subprocess.run([sys.executable, "-c", SEEN], env=environment, check=True)
            began = time.monotonic()
            skipped = " and ".join(f"not {word}" for word in (*SKIPPED, *MACHINES[name].cannot))
            code = subprocess.run([*command, "-k", skipped], cwd=ROOT, env=environment).returncode
        told[name] = f"{'failed' if code else 'passed'} in {time.monotonic() - began:.0f} s"
    print("\n" + "\n".join(f"{name:8s} {said}" for name, said in told.items()))
    return sum(said.startswith("failed") for said in told.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
