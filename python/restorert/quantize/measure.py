"""What a precision costs on pictures, and the gate that refuses what costs too much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from restorert.errors import Cure, InputError, QualityError
from restorert.export.onnx_export import cast_network, evaluating
from restorert.networks import RestorationNetwork
from restorert.precision import DROP_LIMITS
from restorert.psnr import psnr
from restorert.quantize.patches import Patches

TYPICAL_PSNR = 32.0
"""dB that a network is assumed to reach where no references and no published figure tell."""

QUALITY_PATCHES = 8
"""Quality is measured on so many of the patches: float32 is slow, and a few are enough."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """How far a network's pictures at some precision are from its float32 pictures.

    Attributes:
        psnr: to the float32 pictures, dB, of all patches together; inf where equal.
        worst_psnr: of the patch that is furthest.
        ssim: mean over the patches.
        mean_shift: of brightness, in levels of 255, of the patch and channel where it is largest;
            negative where the picture is darker.
        residual_error: norm of the difference / norm of what float32 adds to the picture.
        drop: dB of PSNR lost. Measured against the references where there are any; else the loss at
            ``drop_at`` dB of an error that is independent of the network's own.
        drop_at: PSNR of the float32 pictures, measured or assumed.
        measured: whether ``drop`` was measured against references.
    """

    psnr: float
    worst_psnr: float
    ssim: float
    mean_shift: float
    residual_error: float
    drop: float
    drop_at: float
    measured: bool

    def __str__(self) -> str:
        source = f"at {self.drop_at:.2f} dB" if self.measured else f"if at {self.drop_at:.1f} dB"
        return (
            f"drop {self.drop:.3f} dB {source}; to fp32: PSNR {self.psnr:.1f} dB, worst patch "
            f"{self.worst_psnr:.1f} dB, SSIM {self.ssim:.5f}, mean shift {self.mean_shift:+.3f} "
            f"levels, error {self.residual_error:.4f} of the residual"
        )


def measure_quality(
    found: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    inputs: Sequence[NDArray[Any]],
    references: Sequence[NDArray[Any]] | None = None,
    *,
    typical_psnr: float = TYPICAL_PSNR,
) -> Quality:
    """Compare pictures with the float32 pictures.

    Args:
        found: [N, C, H, W] each, of range [0, 1]; neither clamped nor rounded.
        expected: the float32 pictures.
        inputs: what the network was given.
        references: what it should have made of them, or None.
        typical_psnr: dB that float32 is assumed to reach where ``references`` is None.

    Raises:
        InputError: no pictures, or pictures of different shapes.
        QualityError: a picture holds NaN or infinity.
    """
    if not expected or len(found) != len(expected):
        raise InputError("quality is measured on as many pictures as float32 made, at least one")
    errors, shifts, similar = [], [], []
    wrong = residual = lost = kept = count = 0.0
    for index, (a, b, x) in enumerate(zip(found, expected, inputs, strict=True)):
        if a.shape != b.shape:
            raise InputError(f"pictures of shapes {a.shape} and {b.shape} cannot be compared")
        if not np.isfinite(a).all():
            raise QualityError(f"picture {index + 1} of {len(found)} holds NaN or infinity")
        difference = a.astype(np.float64) - b
        errors.append(float(np.square(difference).mean()))
        wrong += _energy(difference)
        count += difference.size
        shift = difference.mean(axis=(2, 3)).ravel()
        shifts.append(float(shift[np.abs(shift).argmax()]) * 255)
        similar.append(ssim(a, b))
        residual += _energy(b.astype(np.float64) - (x if x.shape == b.shape else 0.0))
        if references is not None:
            clean = references[index].astype(np.float64)
            kept += _energy(np.clip(b, 0, 1) - clean)
            lost += _energy(np.clip(a, 0, 1) - clean)
    measured = kept > 0
    if measured:
        at = psnr(kept / count)
        drop = at - psnr(lost / count)
    else:
        at = typical_psnr
        drop = 10 * math.log10(1 + wrong / count * 10 ** (at / 10))
    return Quality(
        psnr=psnr(wrong / count),
        worst_psnr=psnr(max(errors)),
        ssim=float(np.mean(similar)),
        mean_shift=max(shifts, key=abs),
        residual_error=math.sqrt(wrong / residual) if residual else math.inf if wrong else 0.0,
        drop=drop,
        drop_at=at,
        measured=measured,
    )


def _energy(values: NDArray[np.float64]) -> float:
    return float(np.square(values).sum())


def reference_pictures(
    network: RestorationNetwork, inputs: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """What the network itself makes of each input."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(network):
        return [network(torch.from_numpy(x).to(device)).cpu().numpy() for x in inputs]


def compare(
    found: Sequence[NDArray[Any]],
    network: RestorationNetwork,
    patches: Patches,
    expected: Sequence[NDArray[Any]] | None = None,
) -> Quality:
    """`measure_quality` of pictures made of ``patches`` where float32 is ``network``.

    ``expected`` is what `reference_pictures` made of the patches, where it was called already.
    """
    published = network.spec.paper_psnr
    return measure_quality(
        found,
        reference_pictures(network, patches.inputs) if expected is None else expected,
        patches.inputs,
        patches.references,
        typical_psnr=published[1] if published else TYPICAL_PSNR,
    )


def ssim(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Structural similarity of two [N, C, H, W] pictures of range [0, 1], channel by channel.

    Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004: Gaussian window of sigma 1.5 and 11 pixels,
    K1 0.01, K2 0.03, biased variances, without the border where the window does not fit.
    """
    x, y = (torch.from_numpy(np.asarray(v, np.float64)) for v in (a, b))
    width = min(11, *x.shape[2:])
    width -= 1 - width % 2
    positions = torch.arange(width, dtype=torch.float64) - width // 2
    line = torch.exp(-positions.square() / (2 * 1.5**2))
    line = line / line.sum()

    def blur(v: torch.Tensor) -> torch.Tensor:
        flat = v.reshape(-1, 1, *v.shape[2:])
        flat = F.conv2d(flat, line.view(1, 1, -1, 1))
        return F.conv2d(flat, line.view(1, 1, 1, -1))

    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x.square()
    variance_y = blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def check_quality(quality: Quality, precision: str, limit: float | None = None) -> None:
    """Raise QualityError where a precision costs more than its limit.

    Args:
        quality: of `measure_quality`.
        precision: fp32, fp16, bf16 or int8.
        limit: dB of drop; None is that of `DROP_LIMITS`.
    """
    most = DROP_LIMITS[precision] if limit is None else limit
    if not quality.drop <= most:  # NaN is refused, too
        cure = Cure.KEEP_LAYERS if precision == "int8" else Cure.FP32
        raise QualityError(f"{precision} is over its limit of {most:g} dB: {quality}", cure)


def quality_of(network: RestorationNetwork, precision: str, patches: Patches) -> Quality:
    """What a half precision costs: the network cast to it, in PyTorch, on a few of the patches.

    Args:
        network: stays as it is.
        precision: fp32, fp16 or bf16.
        patches: from `restorert.read_patches`.

    Raises:
        InputError: another precision, or a weight that overflows it.
        QualityError: a picture holds NaN or infinity.
    """
    some = patches.spread(QUALITY_PATCHES)
    found = reference_pictures(cast_network(network, precision), some.inputs)
    return compare(found, network, some)
