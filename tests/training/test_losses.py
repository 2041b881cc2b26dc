"""The papers' losses against their formulas in numpy, and what a minimiser needs of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from restorert.errors import InputError
from restorert.networks import create_network
from restorert.training import losses


@pytest.fixture
def pair(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return (
        torch.rand(2, 3, 17, 23, generator=rng, dtype=torch.float64),
        torch.rand(2, 3, 17, 23, generator=rng, dtype=torch.float64),
    )


def test_psnr_loss_is_minus_the_psnr_of_each_picture(pair: tuple[Tensor, Tensor]) -> None:
    restored, target = pair
    expected = [
        peak_signal_noise_ratio(t.numpy(), r.numpy(), data_range=1.0)
        for r, t in zip(restored, target, strict=True)
    ]
    # 1e-8 beside an error of 0.17: measured 2.6e-7 dB
    assert float(losses.psnr_loss(restored, target)) == pytest.approx(-np.mean(expected), abs=1e-6)
    both = losses.hinet_loss([restored, target], target)
    assert float(both) == pytest.approx(-np.mean(expected) - 80.0, abs=1e-6)


def _laplacian_in_numpy(x: np.ndarray) -> np.ndarray:
    """One channel, sum by sum."""
    line = np.array([0.05, 0.25, 0.4, 0.25, 0.05])

    def gaussian(plane: np.ndarray) -> np.ndarray:
        padded = np.pad(plane, 2, mode="edge")
        out = np.zeros_like(plane)
        for i in range(5):
            for j in range(5):
                rows, columns = plane.shape
                out += line[i] * line[j] * padded[i : i + rows, j : j + columns]
        return out

    sparse = np.zeros_like(x)
    sparse[::2, ::2] = 4 * gaussian(x)[::2, ::2]
    return x - gaussian(sparse)


def test_laplacian_step(pair: tuple[Tensor, Tensor]) -> None:
    x = pair[0]
    found = losses.laplacian_step(x)
    for n in range(2):
        for c in range(3):
            # measured worst: 1.3e-15
            np.testing.assert_allclose(
                found[n, c], _laplacian_in_numpy(x[n, c].numpy()), rtol=0, atol=4e-15
            )
    flat = torch.full((1, 3, 16, 16), 0.7)
    # Inside, a constant has no edges; at the border the zeros in between are uneven.
    # measured worst: 1.2e-7, without AVX
    assert losses.laplacian_step(flat)[..., 4:-4, 4:-4].abs().max() < 1e-6


def test_charbonnier_edge_and_their_sum(pair: tuple[Tensor, Tensor]) -> None:
    restored, target = pair
    x, y = restored.numpy(), target.numpy()
    charbonnier = np.sqrt((x - y) ** 2 + 1e-6).mean()
    # measured, here and below: 0
    steps = [np.stack([[_laplacian_in_numpy(p) for p in n] for n in array]) for array in (x, y)]
    edge = np.sqrt((steps[0] - steps[1]) ** 2 + 1e-6).mean()
    assert float(losses.charbonnier_loss(restored, target)) == pytest.approx(charbonnier, rel=1e-12)
    assert float(losses.edge_loss(restored, target)) == pytest.approx(edge, rel=1e-12)
    stages = losses.mprnet_loss([restored, target], target)
    # Equal pictures cost eps in both terms.
    expected = charbonnier + 1e-3 + 0.05 * (edge + 1e-3)
    assert float(stages) == pytest.approx(expected, rel=1e-12)
    alone = losses.mprnet_loss([restored], target, edge_weight=0.0)
    assert float(alone) == pytest.approx(charbonnier, rel=1e-12)


def test_euclidean_multiscale(pair: tuple[Tensor, Tensor]) -> None:
    target = pair[1][..., :16, :16]
    scales = [torch.zeros(2, 3, 16 // k, 16 // k, dtype=torch.float64) for k in (4, 2, 1)]
    y = target.numpy()
    expected = [(y[..., ::k, ::k] ** 2).sum() / (2 * 3 * (16 // k) ** 2) for k in (4, 2, 1)]
    found = losses.euclidean_multiscale_loss(scales, target)
    # measured: 0
    assert float(found) == pytest.approx(sum(expected), rel=1e-12)
    weighted = losses.euclidean_multiscale_loss(scales, target, [1.0, 0.0, 0.5])
    assert float(weighted) == pytest.approx(expected[0] + 0.5 * expected[2], rel=1e-12)
    with pytest.raises(InputError, match="3 scales need as many weights, not 1"):
        losses.euclidean_multiscale_loss(scales, target, [1.0])
    with pytest.raises(InputError, match="of one shape"):
        losses.euclidean_multiscale_loss([torch.zeros(2, 3, 5, 7)], target)


def test_contrastive_loss(rng: torch.Generator) -> None:
    anchor, positive, negative = torch.rand(3, 2, 3, 8, 8, generator=rng, dtype=torch.float64)
    anchor.requires_grad_()

    def features(x: Tensor) -> list[Tensor]:
        return [x, x[..., ::2, ::2] ** 2]

    found = losses.contrastive_loss(anchor, positive, negative, features)
    a, p, n = (t.detach().numpy() for t in (anchor, positive, negative))
    first = np.abs(a - p).mean() / np.abs(a - n).mean()
    a, p, n = (t[..., ::2, ::2] ** 2 for t in (a, p, n))
    second = np.abs(a - p).mean() / np.abs(a - n).mean()
    # the last two of 1/32, 1/16, 1/8, 1/4, 1; eps moves it: measured 3.1e-7, as below
    assert float(found.detach()) == pytest.approx(first / 4 + second, rel=1e-6)
    found.backward()
    assert anchor.grad is not None
    moved = (anchor - 0.1 * anchor.grad).detach()
    assert losses.contrastive_loss(moved, positive, negative, features) < found
    same = losses.contrastive_loss(positive, positive, negative, features)
    assert float(same) == 0.0
    degenerate = losses.contrastive_loss(negative, positive, negative, features)
    assert torch.isfinite(degenerate)
    many = losses.contrastive_loss(anchor, positive, negative, lambda x: [x] * 7)
    expected = (2 / 32 + 1 / 32 + 1 / 16 + 1 / 8 + 1 / 4 + 1) * first
    assert float(many.detach()) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(InputError, match="2 feature maps need as many weights, not 1"):
        losses.contrastive_loss(anchor, positive, negative, features, [1.0])


def test_focal_loss(rng: torch.Generator) -> None:
    scores = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    exponents = np.exp(scores.numpy())
    p = (exponents / exponents.sum(axis=1, keepdims=True))[np.arange(6), labels.numpy()]
    for gamma in (0.0, 2.0):
        expected = (-((1 - p) ** gamma) * np.log(p)).mean()
        found = float(losses.focal_loss(scores, labels, gamma))
        assert found == pytest.approx(expected, rel=1e-12)  # measured: 2.2e-16


@pytest.mark.parametrize("loss", [losses.psnr_loss, losses.charbonnier_loss, losses.edge_loss])
def test_pictures_of_two_shapes_are_refused(loss: object) -> None:
    with pytest.raises(InputError, match=r"not \[1, 3, 8, 8\] and \[1, 3, 1, 8\]"):
        loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 1, 8))  # type: ignore[operator]


@pytest.mark.parametrize("loss", [losses.psnr_loss, losses.charbonnier_loss, losses.edge_loss])
def test_half_precision_is_widened_and_equal_pictures_have_gradients(loss: object) -> None:
    restored = torch.full((1, 3, 8, 8), 0.5, dtype=torch.bfloat16, requires_grad=True)
    found = loss(restored, restored.detach())  # type: ignore[operator]
    assert found.dtype == torch.float32
    found.backward()
    assert restored.grad is not None
    assert torch.isfinite(restored.grad).all()


@pytest.mark.parametrize(
    ("name", "small", "loss"),
    [
        ("hinet", {"width": 4, "depth": 3}, losses.hinet_loss),
        ("mprnet-derain", None, losses.mprnet_loss),
        ("srn-color", None, losses.euclidean_multiscale_loss),
    ],
)
def test_each_papers_network_takes_its_papers_loss(name: str, small: object, loss: object) -> None:
    from restorert.networks import FAMILIES

    family = next(family for family in FAMILIES if name in family.variants)
    network = create_network(name, **(small or family.small)).requires_grad_(True).train()
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = loss(network.stages(picture), picture * 0.5)  # type: ignore[operator]
    found.backward()
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(grads) > 10
    assert all(torch.isfinite(grad).all() for grad in grads)
