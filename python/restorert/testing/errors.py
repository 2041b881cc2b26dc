"""Measures of the difference between two results."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restorert.psnr import psnr as psnr_of_error


def psnr(a: Tensor, b: Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in [0, peak]; inf if they are equal."""
    return psnr_of_error((a.double() - b.double()).square().mean().item(), peak)


def max_error(found: Tensor, expected: Tensor) -> float:
    """Largest |found - expected| / max(1, |expected|), 0 for empty tensors.

    Equal infinities, and NaN and NaN, count as equal; either against a number gives inf.
    """
    if found.shape != expected.shape:
        raise ValueError(f"shapes {tuple(found.shape)} and {tuple(expected.shape)} differ")
    if found.numel() == 0:
        return 0.0
    f, e = found.double().cpu(), expected.double().cpu()
    same = (f == e) | (f.isnan() & e.isnan())
    error = (f - e).abs() / e.abs().clamp(min=1.0)
    error = torch.where(same, torch.zeros_like(error), error.nan_to_num(nan=math.inf))
    return error.max().item()
