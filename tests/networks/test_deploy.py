"""Deploy forms: each rewrite alone and all together leave the function as it is."""

from __future__ import annotations

import pytest
import torch
from test_registry import EXPORTED, miniature
from torch.nn import functional

import restorert as rr
from restorert.networks.counts import count_macs
from restorert.networks.rewrites import mean_of_convolution
from restorert.weights import weights_hash

DEPLOYED = [name for name in EXPORTED if miniature(name).rewrites]
REWRITES = [(name, rewrite.name) for name in EXPORTED for rewrite in miniature(name).rewrites]


def _perturbed(name: str, dtype: torch.dtype) -> rr.networks.RestorationNetwork:
    """Vectors that start as zeros or ones made different, or a rewrite could forget them."""
    net = miniature(name)
    generator = torch.Generator().manual_seed(3)
    for parameter in net.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += noise * (0.2 if parameter.squeeze().ndim < 2 else 0.0)
    return net.to(dtype)


def _check(name: str, only: list[str] | None, runner: str = "tensorrt_rtx") -> None:
    # measured worst: 1.6e-15 and 6.7e-7
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 2e-6)):
        net = _perturbed(name, dtype)
        before = weights_hash(net)
        deployed = net.deploy(runner, only=only)
        if only is not None:
            assert deployed.deployed == tuple(only)
        assert weights_hash(net) == before
        m = net.spec.size_multiple
        for n, rows, columns in ((1, 1, 1), (2, 3, 5)):
            x = torch.rand(n, net.spec.in_channels, rows * m, columns * m, dtype=dtype)
            with torch.no_grad():
                expected, found = net(x), deployed(x)
            # relative to what the network adds to the picture
            scale = max(float((expected - x[:, : expected.shape[1]]).abs().max()), 1e-3)
            error = float((found - expected).abs().max()) / scale
            assert error < tolerance, f"{dtype}: {error:.1e}"
    shape = (1, net.spec.in_channels, 32 * m, 32 * m)
    before_macs, after_macs = count_macs(net, shape).exact, count_macs(deployed, shape).exact
    print(f"{name} {only or 'all'}: {before_macs} -> {after_macs} MACs")
    if "pad-heads" not in deployed.deployed:  # it adds channels for the sake of the bytes
        assert after_macs <= 1.001 * before_macs  # a mean of a convolution costs one pixel of it


@pytest.mark.parametrize(("name", "rewrite"), REWRITES)
def test_each_rewrite_alone(name: str, rewrite: str) -> None:
    _check(name, [rewrite])


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["torch", "tensorrt", "tensorrt_rtx", "openvino"])
@pytest.mark.parametrize("name", DEPLOYED)
def test_all_together(name: str, runner: str) -> None:
    _check(name, None, runner)


def test_rewrites_say_what_they_are() -> None:
    assert len(DEPLOYED) >= 4
    for name in DEPLOYED:
        rewrites = miniature(name).rewrites
        assert len({rewrite.name for rewrite in rewrites}) == len(rewrites)
        for rewrite in rewrites:
            assert "=" in rewrite.identity or ":" in rewrite.identity


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 2), (6, 9)])
def test_the_mean_of_a_convolution(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = functional.conv2d(x, weight, padding=1).mean((2, 3))
    # measured worst: 6.7e-16
    torch.testing.assert_close(mean_of_convolution(x, weight), expected, rtol=0, atol=3e-15)
    assert mean_of_convolution(x.half(), weight.half()).dtype == torch.float32


def test_deployed_networks_are_for_inference() -> None:
    net = miniature("hinet")
    deployed = net.deploy("tensorrt_rtx")
    assert deployed.deployed == ("split-half-instance-norm",)
    assert deployed.deploy() is deployed
    assert not any(p.requires_grad for p in deployed.parameters())
    with pytest.raises(rr.RestorertError, match="save the one it was made from"):
        rr.save_network(deployed, "never.safetensors")
    with pytest.raises(rr.RestorertError, match="no rewrite 'magic'; hinet has split-half"):
        net.deploy(only=["magic"])
