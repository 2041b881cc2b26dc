"""What a precision costs on pictures, and the gate that refuses what costs too much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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

INVISIBLE_PSNR = 45.0
"""dB above which a limit allows the error that it allows here: it is below one level of 255."""

WORST_DROP = 2.5
"""So many times its limit of the mean drop may a single patch lose."""

SHIFT_LIMIT = 0.5
"""Levels of 255 that brightness may shift by in a patch: what rounding to 8 bits may do."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """How far a network's pictures at some precision are from its float32 pictures.

    Attributes:
        psnr: to the float32 pictures, dB, of all patches together; inf where equal.
        worst_psnr: of the patch that is furthest.
        ssim: mean over the patches.
        shift: of brightness, in levels of 255, magnitude, mean over patches and channels.
        worst_shift: of the patch and channel where it is largest; negative where it is darker.
        residual_error: norm of the difference / norm of what float32 adds to the picture.
        drop: dB of PSNR lost, mean over the patches. Measured against the references where there
            are any and float32 comes near them; else the loss at ``drop_at`` dB of an error that is
            independent of the network's own.
        worst_drop: of the patch that loses most.
        drop_at: mean PSNR of the float32 pictures, measured or assumed.
        measured: whether the drops were measured against references.
        patches: number of patches.
    """

    psnr: float
    worst_psnr: float
    ssim: float
    shift: float
    worst_shift: float
    residual_error: float
    drop: float
    worst_drop: float
    drop_at: float
    measured: bool
    patches: int = 1

    def __str__(self) -> str:
        source = f"at {self.drop_at:.2f} dB" if self.measured else f"if at {self.drop_at:.1f} dB"
        return (
            f"drop {self.drop:.3f} dB {source}, worst patch {self.worst_drop:.3f}; to fp32: PSNR "
            f"{self.psnr:.1f} dB, SSIM {self.ssim:.5f}, shift {self.worst_shift:+.3f} levels, "
            f"error {self.residual_error:.4f} of the residual"
        )

    def allowed(self, limit: float) -> float:
        """The drop that a limit allows here, see `INVISIBLE_PSNR`."""
        above = self.drop_at - INVISIBLE_PSNR
        if above <= 0:
            return limit
        return 10 * math.log10(1 + (10 ** (limit / 10) - 1) * 10 ** (above / 10))

    def excess(self, limit: float, shift: float = SHIFT_LIMIT) -> float:
        """The largest of mean drop, worst drop and shift, each in units of what is allowed."""
        allowed = self.allowed(limit)
        shares = [
            _share(self.drop, allowed),
            _share(self.worst_drop, WORST_DROP * allowed),
            _share(abs(self.worst_shift), shift),
        ]
        return math.nan if any(math.isnan(share) for share in shares) else max(shares)


def _share(value: float, allowed: float) -> float:
    return value / allowed if allowed else math.inf if value > 0 else 0.0


def measure_quality(
    found: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    inputs: Sequence[NDArray[Any]],
    references: Sequence[NDArray[Any] | None] | None = None,
    *,
    typical_psnr: float = TYPICAL_PSNR,
) -> Quality:
    """Compare pictures with the float32 pictures.

    Args:
        found: [N, C, H, W] each, of range [0, 1]; neither clamped nor rounded.
        expected: the float32 pictures.
        inputs: what the network was given.
        references: what it should have made of them, or None.
        typical_psnr: dB that float32 is assumed to reach where there are no references, or where it
            neither comes nearer to them than its input is nor reaches `TYPICAL_PSNR`.

    Raises:
        InputError: no pictures, or pictures of different shapes.
        QualityError: a picture holds NaN or infinity.
    """
    if not expected or len(found) != len(expected):
        raise InputError("quality is measured on as many pictures as float32 made, at least one")
    errors, shifts, similar, drops, decibels = [], [], [], [], []
    wrong = residual = 0.0
    count = 0
    measured = references is not None and all(
        reference is not None and _comes_near(b, x, reference)
        for b, x, reference in zip(expected, inputs, references, strict=True)
    )
    for index, (a, b, x) in enumerate(zip(found, expected, inputs, strict=True)):
        if a.shape != b.shape:
            raise InputError(f"pictures of shapes {a.shape} and {b.shape} cannot be compared")
        if not np.isfinite(a).all():
            raise QualityError(f"picture {index + 1} of {len(found)} holds NaN or infinity")
        difference = a.astype(np.float64) - b
        errors.append(float(np.square(difference).mean()))
        wrong += _energy(difference)
        count += difference.size
        shifts += (difference.mean(axis=(2, 3)).ravel() * 255).tolist()
        similar.append(ssim(a, b))
        residual += _energy(b.astype(np.float64) - (x if x.shape == b.shape else 0.0))
        if measured:
            assert references is not None
            reference = references[index]
            assert reference is not None
            decibels.append(_psnr_of(b, reference))
            drops.append(decibels[-1] - _psnr_of(a, reference))
        else:
            drops.append(10 * math.log10(1 + errors[-1] * 10 ** (typical_psnr / 10)))
    return Quality(
        psnr=psnr(wrong / count),
        worst_psnr=psnr(max(errors)),
        ssim=float(np.mean(similar)),
        shift=float(np.abs(shifts).mean()),
        worst_shift=max(shifts, key=abs),
        residual_error=math.sqrt(wrong / residual) if residual else math.inf if wrong else 0.0,
        drop=float(np.mean(drops)),
        worst_drop=max(drops),
        drop_at=float(np.mean(decibels)) if measured else typical_psnr,
        measured=measured,
        patches=len(found),
    )


def _comes_near(restored: NDArray[Any], given: NDArray[Any], reference: NDArray[Any]) -> bool:
    """Whether a picture is near enough to its reference for a drop to mean something."""
    # Of a picture without any error a drop is infinite or nothing.
    reached = _psnr_of(restored, reference)
    before = _psnr_of(given, reference) if given.shape == reference.shape else math.inf
    return not math.isinf(reached) and reached > min(before, TYPICAL_PSNR)


def _psnr_of(picture: NDArray[Any], reference: NDArray[Any]) -> float:
    return psnr(float(np.square(np.clip(picture, 0, 1).astype(np.float64) - reference).mean()))


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
) -> dict[str, Quality]:
    """`measure_quality` of pictures made of ``patches`` where float32 is ``network``.

    ``expected`` is what `reference_pictures` made of the patches, where it was called already.

    Returns:
        Condition -> quality.
    """
    published = network.spec.paper_psnr
    typical = published[1] if published else TYPICAL_PSNR
    made = reference_pictures(network, patches.inputs) if expected is None else expected
    return {
        condition: measure_quality(
            [found[i] for i in chosen],
            [made[i] for i in chosen],
            [patches.inputs[i] for i in chosen],
            [patches.references[i] for i in chosen],
            typical_psnr=typical,
        )
        for condition, chosen in patches.by_condition().items()
    }


def quality_table(qualities: Mapping[str, Quality]) -> list[str]:
    """A line a condition, below a line of headings: what a precision costs there."""
    width = max(len(condition) for condition in (*qualities, "condition"))
    lines = [f"{'condition':{width}}  drop dB  worst  fp32 dB   to fp32  shift  worst, levels"]
    for condition, q in qualities.items():
        at = f"{q.drop_at:.2f}" if q.measured else f"({q.drop_at:.1f})"
        lines.append(
            f"{condition:{width}}  {q.drop:7.3f} {q.worst_drop:6.3f}  {at:>7}   {q.psnr:7.1f}  "
            f"{q.shift:5.3f} {q.worst_shift:+7.3f}"
        )
    return lines


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


def check_quality(
    qualities: Mapping[str, Quality], precision: str, limit: float | None = None
) -> None:
    """Raise QualityError where a precision costs more than its limit in any condition.

    Args:
        qualities: by condition, of `compare`.
        precision: fp32, fp16, bf16 or int8.
        limit: dB of mean drop; None is that of `DROP_LIMITS`. A patch may lose `WORST_DROP` times
            as much, and its brightness shift by `SHIFT_LIMIT`, or more by as much as ``limit`` is
            above the default.
    """
    usual = DROP_LIMITS[precision]
    most = usual if limit is None else limit
    shift = SHIFT_LIMIT * max(1.0, most / usual if usual else 1.0)
    excesses = {name: quality.excess(most, shift) for name, quality in qualities.items()}
    failed = [name for name, excess in excesses.items() if not excess <= 1]  # NaN, too
    if not failed:
        return
    worst = max(failed, key=lambda name: (math.isnan(excesses[name]), excesses[name]))
    others = f" (and at {', '.join(n for n in failed if n != worst)})" if failed[1:] else ""
    cure = Cure.KEEP_LAYERS if precision == "int8" else Cure.FP32
    raise QualityError(
        f"{precision} is over its limit of {most:g} dB at {worst!r}: {qualities[worst]}{others}",
        cure,
    )


def quality_of(network: RestorationNetwork, precision: str, patches: Patches) -> dict[str, Quality]:
    """What a half precision costs by condition: the network cast to it, in PyTorch.

    Args:
        network: stays as it is.
        precision: fp32, fp16 or bf16.
        patches: from `restorert.read_patches`.

    Raises:
        InputError: another precision, or a weight that overflows it.
        QualityError: a picture holds NaN or infinity.
    """
    judged = patches.judged
    return compare(
        reference_pictures(cast_network(network, precision), judged.inputs), network, judged
    )
