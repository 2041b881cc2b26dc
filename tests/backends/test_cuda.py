"""The cuda runner: what can be known without a GPU, and all of it with one."""

from __future__ import annotations

import pytest
import torch

import restorert as rr
from restorert.backends import choose
from restorert.backends.cuda.run import CUDARunner
from restorert.errors import InputError, RunnerUnavailableError
from restorert.testing import psnr


def test_without_a_gpu_the_error_is_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        RunnerUnavailableError,
        match=r"needs an NVIDIA GPU and torch sees none; runner=\"auto\" picks one",
    ):
        rr.build_engine(rr.create_network("hinet", width=8, depth=2), runner="cuda")


def test_it_has_no_engine_files() -> None:
    with pytest.raises(InputError, match="cuda runner runs networks in memory"):
        choose("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_equals_torch(precision: str) -> None:
    net = rr.create_network("hinet", width=32, depth=3)
    engine = rr.build_engine(net, precision=precision, runner="cuda")
    assert engine.runner.precision == precision
    for shape in ((1, 3, 64, 96), (3, 3, 33, 17), (1, 3, 64, 96), (1, 3, 8, 8)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        expected = rr.build_engine(net, runner="torch")(x.cuda()).cpu()
        assert psnr(engine(x), expected) >= {"fp32": 80, "fp16": 60, "bf16": 45}[precision]
    assert len(engine.runner._graphs) <= CUDARunner.GRAPHS


@pytest.mark.gpu
def test_results_do_not_share_memory() -> None:
    net = rr.create_network("hinet", width=32, depth=3)
    engine = rr.build_engine(net, precision="fp16", runner="cuda")
    first = engine(torch.zeros(1, 3, 16, 16, device="cuda"))
    kept = first.clone()
    engine(torch.ones(1, 3, 16, 16, device="cuda"))
    assert torch.equal(first, kept)
