from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import restorert as rr
from restorert.engine import EngineCache
from restorert.runtime.build import _cached_onnx
from restorert.weights import weights_hash


@pytest.fixture(scope="session")
def network() -> rr.networks.RestorationNetwork:
    return rr.create_network("hinet", width=8, depth=3)


@pytest.fixture(scope="session")
def tiny_onnx(network: rr.networks.RestorationNetwork) -> Callable[[str], Path]:
    """The network as an ONNX file of some precision, exported once."""
    return lambda precision: _cached_onnx(network, precision, EngineCache(), weights_hash(network))
