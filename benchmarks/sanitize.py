"""Call every op's CUDA kernels once a case, for compute-sanitizer to watch.

compute-sanitizer --tool memcheck --kernel-regex kns=restorert python benchmarks/sanitize.py
"""

from __future__ import annotations

import argparse
import sys

import torch

import report
from restorert.errors import RunnerUnavailableError
from restorert.ops import SPECS
from restorert.testing.op_runner import every_case, in_layout

LARGEST = 1 << 20
"""Elements of a case; a sanitised kernel runs a hundred times slower."""


def main() -> int:
    return report.main(report.parser(__doc__), run)


def run(options: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        raise RunnerUnavailableError("torch sees no NVIDIA GPU here; run it on a machine with one")
    device = torch.device("cuda")
    calls = 0
    for spec in SPECS:
        for case, dtype, layout in every_case(spec):
            if torch.Size(case.shape).numel() <= LARGEST:
                spec.op(**in_layout(spec.make_inputs(case, dtype, device, 0), layout))
                calls += 1
        torch.cuda.synchronize()
    print(f"{calls} calls of {len(SPECS)} ops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
