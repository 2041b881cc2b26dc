"""MemoryNet as zhangbaijin/MemoryNet computes it."""

from __future__ import annotations

import ast
import contextlib
import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from seeded import SIZES, record

GAIN = 0.7  # as for mprnet
# Imported by the authors' files and needed by none of what they define.
_UNUSED = ("torch.utils.tensorboard", "torchvision")


def _definitions(path: Path) -> ModuleType:
    """The classes and functions of a file whose other statements run and log a network."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kinds)]
    module = ModuleType(path.stem)
    sys.modules[path.stem] = module
    exec(compile(tree, str(path), "exec"), module.__dict__)
    return module


def record_all(checkout: Path) -> dict[str, np.ndarray]:
    """All stages' outputs at every size; the authors' last comes first."""
    for name in _UNUSED:
        stub = ModuleType(name)
        for attribute in ("SummaryWriter", "datasets", "transforms"):
            setattr(stub, attribute, None)
        sys.modules[name] = stub
    _definitions(checkout / "memory.py")
    module = _definitions(checkout / "MemoryNet.py")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a shape at each call
        return record(
            "memorynet",
            module.MemoryNet(),
            stages=(2, 1, 0),
            sizes=(*SIZES[:2], (72, 40)),
            gain=GAIN,
        )
