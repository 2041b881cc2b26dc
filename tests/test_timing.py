"""Timing side by side: who is called when, and what is made of the samples."""

from __future__ import annotations

import pytest
import torch

from restorert.testing import Timing, time_side_by_side
from restorert.testing.timing import LEAST_ROUNDS

CPU = torch.device("cpu")


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    rounds: list[tuple[int, int]] = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    found = time_side_by_side(
        candidates, device=CPU, repeats=7, warmup=2, on_round=lambda *at: rounds.append(at)
    )
    # an untimed call before each sample
    assert "".join(calls) == "aabb" + 7 * "aabb"
    assert rounds == [(n, 7) for n in range(1, 8)]
    assert {name: len(timing.samples) for name, timing in found.items()} == {"a": 7, "b": 7}


def test_no_more_rounds_than_there_is_time_for() -> None:
    found = time_side_by_side({"a": lambda: None}, device=CPU, repeats=50, max_seconds=0.0)
    assert len(found["a"].samples) == LEAST_ROUNDS


def test_percentiles_in_milliseconds() -> None:
    timing = Timing([n / 1000 for n in range(101)])
    found = timing.to_json()
    # measured: 0
    assert found == pytest.approx(
        {"median_ms": 50, "p95_ms": 95, "p99_ms": 99, "repeats": 101}, rel=1e-12
    )
