"""Metrics against their formulas and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import data
from skimage.metrics import structural_similarity

from restorert.errors import InputError, QualityError
from restorert.precision import DROP_LIMITS
from restorert.quantize import check_quality, measure_quality, ssim


def _picture() -> np.ndarray:
    return (data.astronaut()[100:164, 100:180].transpose(2, 0, 1)[None] / 255).astype(np.float32)


def test_ssim_is_scikit_images() -> None:
    a = _picture()
    b = np.clip(a + np.random.default_rng(0).normal(0, 0.05, a.shape), 0, 1).astype(np.float32)
    expected = structural_similarity(
        a[0].astype(np.float64),
        b[0].astype(np.float64),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-13)  # measured: 1.7e-15
    # measured: 0
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert ssim(a[:, :, :5, :4], a[:, :, :5, :4]) == pytest.approx(1.0, abs=1e-12)


def test_numbers_in_closed_form() -> None:
    x = np.full((1, 3, 16, 16), 0.5, np.float32)
    expected = [x + 0.1, x + 0.1]
    found = [x + 0.1, x + 0.1]
    found[1] = found[1].copy()
    found[1][:, 2] -= 0.03
    q = measure_quality(found, expected, [x, x], typical_psnr=30.0)
    error = 0.03**2 / 6
    # measured: 8.3e-6 dB, and 1.8e-6 of what is relative: the pictures are float32
    assert q.psnr == pytest.approx(-10 * math.log10(error), abs=3e-5)
    assert q.worst_psnr == pytest.approx(-10 * math.log10(2 * error), abs=3e-5)
    assert q.mean_shift == pytest.approx(-0.03 * 255, rel=6e-6)
    assert q.residual_error == pytest.approx(math.sqrt(error) / 0.1, rel=6e-6)
    assert q.drop == pytest.approx(10 * math.log10(1 + error / 1e-3), rel=6e-6)
    assert not q.measured
    with_references = measure_quality(found, expected, [x, x], [x, x])
    assert with_references.measured
    assert with_references.drop_at == pytest.approx(20.0, abs=1e-5)  # measured: 2.1e-6
    # towards the reference is a gain
    assert with_references.drop < 0
    equal = measure_quality(expected, expected, [x, x])
    assert (equal.psnr, equal.drop, equal.residual_error) == (math.inf, 0.0, 0.0)


def test_what_cannot_be_compared() -> None:
    x = _picture()
    with pytest.raises(InputError, match="at least one"):
        measure_quality([], [], [])
    with pytest.raises(InputError, match="cannot be compared"):
        measure_quality([x], [x[:, :, :8]], [x])
    for bad in (np.nan, np.inf):
        broken = x.copy()
        broken[0, 0, 0, 0] = bad
        with pytest.raises(QualityError, match=r"picture 1 of 1 holds NaN"):
            measure_quality([broken], [x], [x])


def test_the_gate() -> None:
    x = _picture()
    dark = measure_quality([x - 0.01], [x], [x * 0.9])
    with pytest.raises(QualityError, match=r"int8 is over its limit of 0.1 dB: drop 0.\d+") as e:
        check_quality(dark, "int8")
    assert "mean shift -2.5" in str(e.value)
    assert 'keep_fp16="auto"' in str(e.value)
    assert "\n" not in str(e.value)
    check_quality(dark, "int8", 3.0)
    same = measure_quality([x], [x], [x * 0.9])
    for precision in DROP_LIMITS:
        check_quality(same, precision)
