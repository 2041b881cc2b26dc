"""Import architectures of repositories built on BasicSR without what only training needs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


class _Registry:
    """Stands for BasicSR's: decorates nothing."""

    def register(self) -> Any:
        return lambda kind: kind


def stub(name: str, folder: Path | None = None, **content: object) -> None:
    """Put a module of ``content`` under ``name``; its submodules are found in ``folder``."""
    module = ModuleType(name)
    module.__path__ = [] if folder is None else [str(folder)]
    for key, value in content.items():
        setattr(module, key, value)
    sys.modules[name] = module


def import_arch(checkout: Path, package: str, name: str) -> ModuleType:
    """The module ``package.name`` of a checkout; ``package`` is ``basicsr.archs`` or the like."""
    stub("basicsr")
    stub("basicsr.models")
    stub("basicsr.utils", get_root_logger=None)
    stub("basicsr.utils.registry", ARCH_REGISTRY=_Registry())
    stub("fvcore")
    stub("fvcore.nn")
    # Initialises weights, which are replaced anyway.
    stub("fvcore.nn.weight_init", c2_msra_fill=lambda module: None)
    stub(package, checkout.joinpath(*package.split(".")))
    return importlib.import_module(f"{package}.{name}")


def hook_features(network: nn.Module, hook_name: str) -> list[Any]:
    """A list that forward passes fill, in the order and by the rule of DCPTModel."""
    features: list[Any] = []
    for name, module in network.named_modules():
        if hook_name in name and name.count(".") == 1:
            module.register_forward_hook(lambda m, i, output: features.append(output))
    return features
