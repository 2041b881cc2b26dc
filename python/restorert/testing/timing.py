"""Times several candidates side by side, and measures the memory that a block takes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

LEAST_ROUNDS = 5


@dataclass
class Timing:
    """The durations of a call in seconds, one per sample."""

    samples: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """A percentile in seconds; ``share`` is from 0 to 100."""
        return float(np.percentile(self.samples, share))

    @property
    def median(self) -> float:
        return self.percentile(50)

    def to_json(self) -> dict[str, float]:
        """Milliseconds and the number of samples."""
        return {
            "median_ms": self.median * 1e3,
            "p95_ms": self.percentile(95) * 1e3,
            "p99_ms": self.percentile(99) * 1e3,
            "repeats": len(self.samples),
        }


def time_side_by_side(
    candidates: Mapping[str, Callable[[], object]],
    *,
    device: torch.device,
    repeats: int = 20,
    max_seconds: float = float("inf"),
    warmup: int = 3,
    cold_l2: bool = True,
    on_round: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time candidates in turn, round by round, so that drift affects all of them equally.

    Args:
        candidates: calls by name.
        device: on CUDA a sample is the time between two events around the call; on the CPU it is
            wall-clock time, and one untimed call precedes each sample, because the previous
            candidate's thread pool still spins and its data still fills the caches.
        repeats: rounds, of one sample each.
        max_seconds: start no further round after this time, but run at least `LEAST_ROUNDS`.
        warmup: calls of each candidate before the first round.
        cold_l2: on CUDA, overwrite the L2 cache before each sample.
        on_round: called with (round, rounds) for progress.
    """
    for call in candidates.values():
        for _ in range(warmup):
            call()
    timings = {name: Timing() for name in candidates}
    flush = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        flush = torch.empty(2 * l2_bytes, dtype=torch.uint8, device=device) if cold_l2 else None
    began = time.perf_counter()
    for index in range(repeats):
        if index >= LEAST_ROUNDS and time.perf_counter() - began > max_seconds:
            break
        for name, call in candidates.items():
            if device.type == "cuda":
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                if flush is not None:
                    flush.zero_()
                begin.record()
                call()
                end.record()
                end.synchronize()
                seconds = begin.elapsed_time(end) / 1e3
            else:
                call()
                started = time.perf_counter()
                call()
                seconds = time.perf_counter() - started
            timings[name].samples.append(seconds)
        if on_round:
            on_round(index + 1, repeats)
    return timings


@dataclass
class Memory:
    """Bytes taken while a `peak_memory` block ran."""

    peak_bytes: int = 0


def _status_bytes(field_name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[Memory]:
    """Measure the peak memory of the block, above the memory in use at entry.

    On CUDA: of the whole device, so that TensorRT's own allocations count; on the CPU: the
    process's resident set. Memory that a library keeps and reuses from earlier work is not seen.
    """
    memory = Memory()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        free_before = torch.cuda.mem_get_info(device)[0]
        allocated_before = torch.cuda.memory_allocated(device)
        yield memory
        torch.cuda.synchronize(device)
        reserved = torch.cuda.memory_reserved(device)
        taken = free_before - torch.cuda.mem_get_info(device)[0] - reserved
        peak = torch.cuda.max_memory_allocated(device) - allocated_before
        memory.peak_bytes = max(taken, 0) + max(peak, 0)
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before = _status_bytes("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    yield memory
    memory.peak_bytes = max(_status_bytes("VmHWM") - before, 0)
