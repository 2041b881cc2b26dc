from __future__ import annotations

import pytest

import restorert as rr


@pytest.fixture(scope="session")
def network() -> rr.networks.RestorationNetwork:
    return rr.create_network("hinet", width=8, depth=3)
