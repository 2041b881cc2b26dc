"""Shared fixtures, and the rule for tests that need a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

try:
    import hypothesis
except ImportError:  # the kernels' tests on a GPU machine do without
    pass
else:
    # The same cases at every run; HYPOTHESIS_PROFILE=explore looks for new ones.
    hypothesis.settings.register_profile("repeatable", derandomize=True)
    hypothesis.settings.register_profile("explore", max_examples=1000)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

REQUIRE_GPU = os.environ.get("RESTORERT_REQUIRE_GPU") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests without a GPU; where one is required, fail instead."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        reason = "needs an NVIDIA GPU and torch sees none"
        if REQUIRE_GPU:
            pytest.fail(f"RESTORERT_REQUIRE_GPU=1: {reason}")
        pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, which must share a process: see `_group`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    """A file's tests share what its fixtures made, the native ones a build folder."""
    if "native" in item.path.parts:
        return "native"
    parameters = getattr(item, "callspec", None)
    network = parameters.params.get("name", "") if parameters else ""
    return f"{item.path.name} {network}"


@pytest.fixture(autouse=True, scope="session")
def _threads_of_a_worker() -> None:
    """Side by side, processes share the cores."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's own engine cache."""
    os.environ["RESTORERT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]
