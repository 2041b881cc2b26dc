"""NAFNet's layer norm and gates beyond what every op is tested for."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorert.errors import InputError
from restorert.ops import layer_norm_2d, simple_gate_mean
from restorert.ops.layer_norm_2d import SPEC as LAYER_NORM
from restorert.ops.simple_gate_mean import eager as eager_gate_mean
from restorert.ops.spec import Draw
from restorert.testing.op_runner import LAYOUTS

INF = math.inf


def _random(*shape: int, mean: float = 0.0, std: float = 1.0, seed: int = 0) -> Tensor:
    return Draw(torch.float32, torch.device("cpu"), seed)(shape, mean, std)


# ---- layer_norm_2d ----


def test_layer_norm_is_torchs_over_the_last_axis() -> None:
    x = _random(2, 12, 5, 7).double()
    weight, bias = _random(12, seed=1).double(), _random(12, seed=2).double()
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (12,), weight, bias, 1e-6).permute(0, 3, 1, 2)
    for found in (LAYER_NORM.reference(x, weight, bias), layer_norm_2d(x, weight, bias)):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(LAYER_NORM.eager(x, weight, bias), expected, rtol=0, atol=1e-13)


def test_layer_norm_closed_form() -> None:
    """Channels m + d and m - d in turn: mean m, deviation d, so the result is +-weight + bias."""
    for channels in (2, 16, 40, 256, 1030):
        x = torch.full((1, channels, 3, 5), 4096.0)
        x[:, ::2] += 2.0
        x[:, 1::2] -= 2.0
        weight, bias = torch.full((channels,), 3.0), torch.full((channels,), 0.5)
        for layout in LAYOUTS:
            out = layer_norm_2d(x.contiguous(memory_format=layout), weight, bias, eps=0.0)
            assert torch.equal(out[:, ::2], torch.full_like(out[:, ::2], 3.5))
            assert torch.equal(out[:, 1::2], torch.full_like(out[:, 1::2], -2.5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_norm_poison_stays_in_its_pixel(layout: torch.memory_format) -> None:
    x = _random(2, 20, 6, 7).contiguous(memory_format=layout)
    weight, bias = torch.ones(20), torch.zeros(20)
    clean = layer_norm_2d(x, weight, bias)
    for value in (math.nan, INF, -INF):
        poisoned = x.clone()
        poisoned[1, 3, 2, 4] = value
        out = layer_norm_2d(poisoned, weight, bias)
        assert bool(out[1, :, 2, 4].isnan().all())
        out[1, :, 2, 4] = clean[1, :, 2, 4]
        assert torch.equal(out, clean)


X = torch.zeros(1, 4, 3, 3)
W = torch.zeros(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], W, W), r"argument 'x' has 3 dimensions; expected \[N, C, H, W\]"),
        ((X, W[:3], W), r"argument 'weight' has shape \[3\]; expected \[4\]"),
        ((X, W, W[None]), r"argument 'bias' has shape \[1, 4\]; expected \[4\]"),
        ((X.int(), W, W), r"argument 'x' has dtype int32"),
        ((X, W.int(), W), r"argument 'weight' has dtype int32"),
        ((X, W, W.half()), r"argument 'bias' has dtype float16"),
        ((X, W, W, -1.0), r"'eps'"),
        ((X, W, W, INF), r"'eps'"),
        ((X.to_sparse(), W, W), r"argument 'x' is sparse"),
        ((X, W.to("meta"), W), r"argument 'weight' is on meta"),
    ],
)
def test_layer_norm_misuse_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        layer_norm_2d(*arguments)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("layer_norm_2d: ")


# ---- simple_gate_mean ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gate_is_torchs_product(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """One multiplication, rounded once: the same bits."""
    for shape in [(2, 6, 17, 23), (1, 128, 40, 41), (3, 2, 1, 1), (1, 2000, 3, 5)]:
        x = _random(*shape).to(dtype).contiguous(memory_format=layout)
        first, second = x.chunk(2, dim=1)
        assert torch.equal(simple_gate_mean(x)[0], first * second)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mean_is_the_pooled_product(layout: torch.memory_format) -> None:
    x = _random(2, 34, 45, 80).contiguous(memory_format=layout)
    product, mean = simple_gate_mean(x)
    assert mean.shape == (2, 17)
    pooled = F.adaptive_avg_pool2d(product.double(), 1).flatten(1)
    torch.testing.assert_close(mean.double(), pooled, rtol=0, atol=1e-7)
    torch.testing.assert_close(mean, eager_gate_mean(x)[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mean_is_float32_where_float16_overflows(layout: torch.memory_format) -> None:
    """Products of 4e4 stay below float16's 65504; their sum does not, nor does 3e4 * 3e4."""
    x = torch.full((1, 16, 50, 60), 200.0, dtype=torch.float16)
    product, mean = simple_gate_mean(x.contiguous(memory_format=layout))
    assert mean.dtype == torch.float32
    assert torch.equal(mean, torch.full((1, 8), 4e4))
    assert torch.equal(product, torch.full_like(product, 4e4))
    product, mean = simple_gate_mean(torch.full_like(x, 3e4).contiguous(memory_format=layout))
    assert bool((product == INF).all())
    # measured worst: 6.4e-7, without AVX
    torch.testing.assert_close(mean, torch.full((1, 8), 9e8), rtol=4e-6, atol=0)


def test_mean_of_nothing_is_nan() -> None:
    for dtype in (torch.float32, torch.float64):
        product, mean = simple_gate_mean(torch.zeros(2, 6, 0, 5, dtype=dtype))
        assert product.shape == (2, 3, 0, 5)
        assert mean.shape == (2, 3)
        assert bool(mean.isnan().all())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"argument 'x' has 3 dimensions; expected \[N, 2C, H, W\]"),
        (X[:, :3], r"argument 'x' has 3 channels; expected an even number"),
        (X.int(), r"argument 'x' has dtype int32"),
        (X.to_sparse(), r"argument 'x' is sparse"),
    ],
)
def test_gate_misuse_is_one_line(x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        simple_gate_mean(x)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("simple_gate_mean: ")
