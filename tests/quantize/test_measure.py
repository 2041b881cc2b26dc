"""Metrics against their formulas and against scikit-image."""

from __future__ import annotations

import math
from dataclasses import replace

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
    assert q.worst_shift == pytest.approx(-0.03 * 255, rel=6e-6)
    assert q.shift == pytest.approx(0.03 * 255 / 6, rel=6e-6)
    assert q.residual_error == pytest.approx(math.sqrt(error) / 0.1, rel=6e-6)
    worst = 10 * math.log10(1 + 2 * error / 1e-3)
    assert q.drop == pytest.approx(worst / 2, rel=6e-6)
    assert q.worst_drop == pytest.approx(worst, rel=6e-6)
    assert not q.measured
    # references that float32 comes near to: nearer than the input, which is 0.11 from them
    clean = x + 0.11
    with_references = measure_quality(found, expected, [x, x], [clean, clean])
    assert with_references.measured
    assert with_references.drop_at == pytest.approx(40.0, abs=1e-3)  # measured: 5.2e-5
    lost = 10 * math.log10((2 * 0.01**2 + 0.04**2) / 3 / 0.01**2)
    assert with_references.worst_drop == pytest.approx(lost, rel=1e-5)
    assert with_references.drop == pytest.approx(lost / 2, rel=1e-5)
    # of a network that makes pictures worse nothing can be measured
    assert not measure_quality(found, expected, [x, x], [x, x]).measured
    assert not measure_quality(found, expected, [x, x], [clean, None]).measured
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
    same = measure_quality([x], [x], [x * 0.9])
    with pytest.raises(
        QualityError, match=r"int8 is over its limit of 0.1 dB at 'night': drop 0.\d+"
    ) as e:
        check_quality({"day": same, "night": dark}, "int8")
    assert "shift -2.5" in str(e.value)
    assert 'keep_fp16="auto"' in str(e.value)
    assert "\n" not in str(e.value)
    with pytest.raises(QualityError, match=r"at 'night': .* \(and at dusk\)"):
        check_quality({"dusk": dark, "day": same, "night": replace(dark, drop=9.0)}, "int8")
    check_quality({"day": dark}, "int8", 3.0)
    for precision in DROP_LIMITS:
        check_quality({"day": same}, precision)


def test_each_figure_has_its_limit() -> None:
    x = _picture()
    good = replace(measure_quality([x], [x], [x * 0.9]), drop_at=40.0)
    nan = float("nan")
    for change in (
        {"drop": 0.11},
        {"worst_drop": 0.26},
        {"worst_shift": -0.51},
        {"drop": nan},
        {"drop": 0.2, "drop_at": 45.0},
    ):
        with pytest.raises(QualityError):
            check_quality({"day": replace(good, **change)}, "int8", 0.1)
    for change in ({"drop": 0.1}, {"worst_drop": 0.24}, {"worst_shift": 0.49}):
        check_quality({"day": replace(good, **change)}, "int8", 0.1)
    # above 45 dB the error that costs 0.1 dB there is allowed: at 50 dB it costs 0.31
    for drop, passes in ((0.3, True), (0.32, False)):
        clean = replace(good, drop=drop, drop_at=50.0)
        assert (clean.excess(0.1) <= 1) == passes
