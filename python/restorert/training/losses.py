"""The papers' training objectives, each with its formula and source.

All take pictures [N, C, H, W] in [0, 1] (restored ones not clamped) and return a scalar to
minimise, in float32 or wider for every dtype of the pictures. They are functions without weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from restorert.errors import InputError

FeatureExtractor = Callable[[Tensor], Sequence[Tensor]]


def psnr_loss(restored: Tensor, target: Tensor, eps: float = 1e-8) -> Tensor:
    """``mean over pictures of 10 log10(MSE + eps)``: minus the PSNR of pictures in [0, 1].

    HINet (Chen et al., CVPRW 2021), section 3.3. ``eps`` is the authors' code's.

    Raises:
        InputError: pictures of two shapes.
    """
    restored, target = _pair(restored, target)
    error = (restored - target).square().mean(dim=(1, 2, 3))
    return (10 / math.log(10)) * torch.log(error + eps).mean()


def hinet_loss(stages: Sequence[Tensor], target: Tensor) -> Tensor:
    """``-sum_i PSNR(R_i + X_i, Y)`` over HINet's two stages (section 3.3, equation 1).

    Args:
        stages: of `RestorationNetwork.stages`.
        target: Y.
    """
    return _sum([psnr_loss(stage, target) for stage in stages])


def charbonnier_loss(restored: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """``mean sqrt((X - Y)^2 + eps^2)``: L1, but smooth at 0.

    MPRNet (Zamir et al., CVPR 2021), equation 4, and MemoryNet's L_char; eps 1e-3 in both. The
    papers take the root of the whole picture's norm; both authors' code, like this function, takes
    the root of each value.

    Raises:
        InputError: pictures of two shapes.
    """
    restored, target = _pair(restored, target)
    return torch.sqrt((restored - target).square() + eps * eps).mean()


def laplacian_step(x: Tensor) -> Tensor:
    """``x - G(U(D(G(x))))``: one step of a Laplacian pyramid, at full size.

    G convolves with the outer product of (1, 5, 8, 5, 1) / 20, border pixels repeated; D keeps
    every second pixel; U puts them back between zeros, times 4. It is the Laplacian of MPRNet's
    equation 5, after Burt and Adelson (1983), with the weights of the authors' code.
    """
    smooth = _gaussian(x)
    sparse = torch.zeros_like(smooth)
    sparse[..., ::2, ::2] = 4 * smooth[..., ::2, ::2]
    return x - _gaussian(sparse)


def _gaussian(x: Tensor) -> Tensor:
    line = x.new_tensor([1.0, 5.0, 8.0, 5.0, 1.0]) / 20
    channels = x.shape[1]
    across = line.view(1, 1, 1, 5).expand(channels, 1, 1, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    rows = F.conv2d(padded, across, groups=channels)
    return F.conv2d(rows, across.transpose(2, 3), groups=channels)


def edge_loss(restored: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """The Charbonnier loss between the Laplacian steps of the two pictures.

    MPRNet (Zamir et al., CVPR 2021), equation 5, and MemoryNet's L_edge.

    Raises:
        InputError: pictures of two shapes.
    """
    restored, target = _pair(restored, target)
    return charbonnier_loss(laplacian_step(restored), laplacian_step(target), eps)


def mprnet_loss(stages: Sequence[Tensor], target: Tensor, edge_weight: float = 0.05) -> Tensor:
    """``sum_i L_char(X_i, Y) + edge_weight * L_edge(X_i, Y)`` over all stages.

    MPRNet (Zamir et al., CVPR 2021), equation 3, edge_weight 0.05 (0 for its denoising networks,
    which train without the edge term); MemoryNet trains on the same sum, in its code with 0.05.

    Args:
        stages: of `RestorationNetwork.stages`, in any order.
        target: Y.
        edge_weight: lambda.
    """
    total = _sum([charbonnier_loss(stage, target) for stage in stages])
    if edge_weight:
        total = total + edge_weight * _sum([edge_loss(stage, target) for stage in stages])
    return total


def euclidean_multiscale_loss(
    scales: Sequence[Tensor], target: Tensor, weights: Sequence[float] | None = None
) -> Tensor:
    """``sum_i kappa_i / N_i * ||I_i - I*_i||^2``: mean squared error at every scale.

    SRN-Deblur (Tao et al., CVPR 2018), equation 8: N_i counts the values of scale i (a batch is
    averaged), kappa_i is 1. The sharp picture is resized like the network's input, by TensorFlow
    1's bilinear resize, which for a whole factor takes every factor-th pixel.

    Args:
        scales: [N, C, H / k, W / k] each, k a whole number: of
            `RestorationNetwork.stages`.
        target: [N, C, H, W].
        weights: kappa for each scale; None for 1.

    Raises:
        InputError: a scale whose size does not divide the target's, or another number of weights.
    """
    kappa = [1.0] * len(scales) if weights is None else list(weights)
    if len(kappa) != len(scales):
        raise InputError(f"{len(scales)} scales need as many weights, not {len(kappa)}")
    losses = []
    for weight, restored in zip(kappa, scales, strict=True):
        factor = target.shape[-1] // max(restored.shape[-1], 1)
        smaller = target[..., :: max(factor, 1), :: max(factor, 1)]
        restored, smaller = _pair(restored, smaller)
        losses.append(weight * (restored - smaller).square().mean())
    return _sum(losses)


def contrastive_loss(
    restored: Tensor,
    target: Tensor,
    degraded: Tensor,
    features: FeatureExtractor,
    weights: Sequence[float] | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """``sum_i w_i * |phi_i(X) - phi_i(Y)|_1 / |phi_i(X) - phi_i(I)|_1``.

    It pulls the restored picture to the clean one and away from the degraded one: MemoryNet (Zhang
    et al., arXiv 2309.01377, section 3: anchor X restored, positive Y clean, negative I degraded),
    in the form of the work that it builds on, AECR-Net (Wu et al., CVPR 2021, equation 4), since
    MemoryNet's authors publish no code of it. Gradients flow through the anchor only.

    Args:
        restored, target, degraded: the anchor, the positive, the negative; of one shape.
        features: a frozen network that returns feature maps of a picture, from shallow to deep.
            Both papers use VGG-19; any encoder will do, such as `DegradationClassifier.features`.
        weights: w for each feature map; None for 1/32, 1/16, 1/8, 1/4, 1 (AECR-Net's), the last of
            them for fewer maps, with 1/32 in front for more.
        eps: added to the denominator, so that an anchor equal to the negative stays finite.

    Raises:
        InputError: pictures of two shapes, or another number of weights than of feature maps.
    """
    restored, target = _pair(restored, target)
    _, degraded = _pair(restored, degraded)
    anchors = features(restored)
    with torch.no_grad():
        positives, negatives = features(target), features(degraded)
    if weights is None:
        halves = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0]
        weights = ([1 / 32] * len(anchors) + halves)[-len(anchors) :]
    if len(weights) != len(anchors):
        raise InputError(f"{len(anchors)} feature maps need as many weights, not {len(weights)}")
    losses = []
    for weight, anchor, positive, negative in zip(
        weights, anchors, positives, negatives, strict=True
    ):
        anchor = _wide(anchor)
        pulled = (anchor - _wide(positive)).abs().mean()
        pushed = (anchor - _wide(negative)).abs().mean()
        losses.append(weight * pulled / (pushed + eps))
    return _sum(losses)


def focal_loss(scores: Tensor, labels: Tensor, gamma: float = 0.0) -> Tensor:
    """``mean of -(1 - p)^gamma log p``, p the probability of the correct class.

    Lin et al. (ICCV 2017), equation 4. DCPT's code classifies with it at gamma 0, which is cross
    entropy.

    Args:
        scores: [N, classes], before the softmax.
        labels: [N] int64.
        gamma: >= 0; the larger, the less samples count that are classified well already.
    """
    entropy = F.cross_entropy(_wide(scores), labels, reduction="none")
    if gamma:
        entropy = (1 - torch.exp(-entropy)).clamp(min=0).pow(gamma) * entropy
    return entropy.mean()


def _pair(restored: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if restored.shape != target.shape:
        raise InputError(
            f"a loss compares pictures of one shape, not {list(restored.shape)} and "
            f"{list(target.shape)}"
        )
    return _wide(restored), _wide(target)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum(losses: Sequence[Tensor]) -> Tensor:
    if not losses:
        raise InputError("a loss over stages needs at least one")
    return torch.stack(list(losses)).sum()
