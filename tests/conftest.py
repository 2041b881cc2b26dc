"""Shared fixtures, and the rule for tests that need a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REQUIRE_GPU = os.environ.get("RESTORERT_REQUIRE_GPU") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests without a GPU; where one is required, fail instead."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        reason = "needs an NVIDIA GPU and torch sees none"
        if REQUIRE_GPU:
            pytest.fail(f"RESTORERT_REQUIRE_GPU=1: {reason}")
        pytest.skip(reason)


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
