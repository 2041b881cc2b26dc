"""Shared fixtures, and the rule for tests that need a GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import restorert as rr

try:
    import hypothesis
except ImportError:  # the kernels' tests on a GPU machine do without
    pass
else:
    # The same cases at every run; HYPOTHESIS_PROFILE=explore looks for new ones.
    # Folders of fixtures are shared on purpose; how long a draw takes depends on the machine.
    checks = hypothesis.HealthCheck
    common = hypothesis.settings(
        deadline=None, suppress_health_check=[checks.function_scoped_fixture, checks.too_slow]
    )
    hypothesis.settings.register_profile("repeatable", common, derandomize=True)
    hypothesis.settings.register_profile("explore", common, max_examples=1000)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

REQUIRE_GPU = os.environ.get("RESTORERT_REQUIRE_GPU") == "1"

SLOW_FIXTURES = {"native_build", "exported", "half_file"}
"""They compile C++ or export networks: what needs them is slow, whatever it then does."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests without a GPU; where one is required, fail instead."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        reason = "needs an NVIDIA GPU and torch sees none"
        if REQUIRE_GPU:
            pytest.fail(f"RESTORERT_REQUIRE_GPU=1: {reason}")
        pytest.skip(reason)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's; the kernels' tests do without it
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Where tests run side by side, which must share a process: see `_group`."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return GroupScheduling(config, log)


def _group(nodeid: str) -> str:
    """A file's tests share what its fixtures made, the native ones a build folder.

    Of the file that asks everything of every network, the tests of one network do.
    """
    if nodeid.startswith("tests/native/"):
        return "tests/native"
    file, _, test = nodeid.partition("::")
    if file.endswith("test_registry.py") and (network := re.search(r"\[([^]]+)\]", test)):
        return f"{file} {re.sub('-(fp32|fp16|bf16|int8)$', '', network[1])}"
    return file


@pytest.fixture(autouse=True, scope="session")
def _threads_of_a_worker() -> None:
    """Side by side, processes share the cores."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's own engine cache."""
    os.environ["RESTORERT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def int8_saturates() -> bool:
    """Whether OpenVINO's INT8 may lose sums here: without VNNI it adds products in 16 bits."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return "vnni" not in flags or "ONEDNN_MAX_CPU_ISA" in os.environ


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def network() -> rr.networks.RestorationNetwork:
    """A miniature of a network, with random weights."""
    return rr.create_network("hinet", width=8, depth=3)


@pytest.fixture(scope="session")
def tiny_onnx(
    network: rr.networks.RestorationNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The network as an ONNX file of some precision, exported once."""
    folder = tmp_path_factory.mktemp("exported")

    def exported(precision: str) -> Path:
        path = folder / f"{precision}.onnx"
        return path if path.exists() else rr.export_onnx(network, path, precision=precision)

    return exported
