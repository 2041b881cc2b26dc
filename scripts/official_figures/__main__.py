"""Record what the authors' own code computes, as figures that the tests compare with.

    python scripts/official_figures hinet CHECKOUT_OF_MEGVII_HINET

The authors' code is read from a checkout that the caller has; none of it is kept. There is one file
here for each family of networks. Weights and pictures are those of seeded.py. Kept are the outputs
at 1024 pixels and each channel's mean and standard deviation.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    here = Path(__file__).parent
    families = sorted(p.stem for p in here.glob("[a-z]*.py") if p.stem != "seeded")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=families)
    parser.add_argument("checkout", type=Path)
    options = parser.parse_args()
    target = here.parents[1] / f"tests/networks/data/{options.family}_official.npz"
    kept = importlib.import_module(options.family).record_all(options.checkout)
    np.savez_compressed(target, **kept)
    print(f"{target}: {target.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
