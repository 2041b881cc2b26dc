"""Degradations: seeded, in range, and as strong as they say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from restorert.errors import InputError
from restorert.networks.degradation_classifier import CLASSES
from restorert.pictures.degradations import (
    Chain,
    GaussianBlur,
    GaussianNoise,
    Haze,
    Jpeg,
    LowLight,
    MotionBlur,
    RainStreaks,
    dcpt_degradations,
    line_kernel,
    smooth_field,
)

ALL = {
    **dcpt_degradations(),
    "jpeg": Jpeg(),
    "defocus": GaussianBlur(),
    "both": Chain((GaussianNoise(), Jpeg())),
}
PICTURE = (data.coffee()[120:216, 250:380] / 255).astype(np.float32)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ALL)
def test_seeded_of_one_shape_and_the_input_untouched(name: str) -> None:
    degradation = ALL[name]
    before = PICTURE.copy()
    once, again = degradation(PICTURE, seeded()), degradation(PICTURE, seeded())
    assert once.shape == PICTURE.shape
    assert once.dtype == np.float32
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - degradation(PICTURE, seeded(1))).max() > 0.01
    assert np.abs(once - PICTURE).mean() > 0.004
    np.testing.assert_array_equal(PICTURE, before)
    if name not in ("noise", "low light"):  # noise leaves the range, unless rounded
        # sums of weights in float32
        assert once.min() >= -1e-6
        assert once.max() <= 1 + 1e-6


def test_noise_has_its_sigma() -> None:
    grey = np.full((256, 256, 3), 0.5, np.float32)
    noise = GaussianNoise((25, 25), rounded=0.0)(grey, seeded()) - grey
    # 196608 draws: one standard error of the deviation is 0.16 %
    assert noise.std() * 255 == pytest.approx(25, rel=0.005)  # measured: 0.2 %
    assert abs(noise.mean()) < 3 * 25 / 255 / 443
    # four standard errors; measured: 0.0003 and 0.003
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.016
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.009
    strengths = [GaussianNoise((10, 20), 0.0)(grey, seeded(s)).std() * 255 for s in range(40)]
    assert min(strengths) > 9.9
    assert max(strengths) < 20.2
    assert np.std(strengths) > 2  # uniform: 2.9


def test_rounded_noise_is_what_a_file_holds() -> None:
    noisy = GaussianNoise((50, 50), rounded=1.0)(PICTURE, seeded())
    levels = noisy * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4  # measured: 0
    assert noisy.min() == 0.0
    assert noisy.max() == 1.0


@pytest.mark.parametrize(("share", "subsampling"), [(1.0, 0), (0.0, 2)])
def test_jpeg_equals_pillows(share: float, subsampling: int) -> None:
    stream = io.BytesIO()
    levels = np.rint(PICTURE * 255).astype(np.uint8)
    Image.fromarray(levels).save(stream, "JPEG", quality=40, subsampling=subsampling)
    expected = np.asarray(Image.open(stream)).astype(np.float32) / 255
    found = Jpeg((40, 40), share)(PICTURE, seeded())
    np.testing.assert_array_equal(found, expected)


def test_jpeg_draws_every_quality() -> None:
    class Chosen:
        def __init__(self) -> None:
            self.ranges: list[tuple[int, int]] = []

        def integers(self, low: int, high: int) -> int:
            self.ranges.append((low, high))
            return low

        def random(self) -> float:
            return 0.5

    chosen = Chosen()
    Jpeg((30, 95))(PICTURE, chosen)  # type: ignore[arg-type]
    assert chosen.ranges == [(30, 96)]


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_gaussian_blur_equals_scipys(sigma: float) -> None:
    found = GaussianBlur((sigma, sigma))(PICTURE, seeded())
    for channel in range(3):
        expected = ndimage.gaussian_filter(
            PICTURE[..., channel].astype(np.float64),
            sigma,
            mode="nearest",
            radius=int(np.ceil(3 * sigma)),
        )
        # measured worst: 9.2e-7
        np.testing.assert_allclose(found[..., channel], expected, rtol=0, atol=3e-6)


def test_motion_blur_is_a_mean_along_the_path() -> None:
    found = MotionBlur((5, 5), (0, 0))(PICTURE, seeded())
    weights = line_kernel(5, 0)[2]
    # from centre to centre four steps: half of the light of one falls on each end
    # measured: 0.0092, since the path is sampled
    np.testing.assert_allclose(weights, np.array([0.5, 1, 1, 1, 0.5]) / 4, atol=0.01)
    expected = ndimage.correlate1d(PICTURE.astype(np.float64), weights, axis=1, mode="nearest")
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)  # measured: 1.3e-7
    spike = np.zeros((41, 41, 3), np.float32)
    spike[20, 20] = 1
    rising = MotionBlur((15, 15), (60, 60))(spike, seeded())[..., 0]
    rows, columns = np.nonzero(rising > rising.max() / 2)
    slope = np.polyfit(columns, -rows, 1)[0]
    assert np.degrees(np.arctan(slope)) == pytest.approx(60, abs=2)  # measured: 0.75
    assert rising.sum() == pytest.approx(1, abs=1e-6)  # measured: 0


def test_a_path_of_one_pixel_changes_nothing() -> None:
    assert line_kernel(1, 33).tolist() == [[1.0]]
    np.testing.assert_array_equal(MotionBlur((1, 1))(PICTURE, seeded()), PICTURE)


def test_rain_only_brightens_and_falls_along_its_angle() -> None:
    dark = np.full((200, 200, 3), 0.2, np.float32)
    rain = RainStreaks((0.002, 0.002), (25, 25), (0, 0), (0.8, 0.8))(dark, seeded()) - dark
    assert rain.min() >= -1e-7  # measured: -1.5e-8, of a subtraction
    assert np.ptp(rain, axis=2).max() == 0  # grey
    assert 0.02 < (rain > 0.05).mean() < 0.15  # measured: 0.056
    # upright streaks: alike from row to row, unlike from column to column; measured: 0.044
    assert np.abs(np.diff(rain, axis=0)).mean() < 0.13 * np.abs(np.diff(rain, axis=1)).mean()
    bright = np.ones((50, 50, 3), np.float32)
    np.testing.assert_array_equal(RainStreaks()(bright, seeded()), bright)


def test_haze_solves_its_model() -> None:
    beta, airlight = 1.2, 0.9
    hazy = Haze((beta, beta), (airlight, airlight))(PICTURE, seeded())
    draws = seeded()
    draws.uniform(), draws.uniform()
    depth = 0.4 + 0.6 * smooth_field(*PICTURE.shape[:2], draws)
    t = np.exp(-beta * depth)[..., None]
    clean = (hazy - airlight * (1 - t)) / t
    np.testing.assert_allclose(clean, PICTURE, rtol=0, atol=5e-7)  # measured: 9.7e-8
    assert depth.min() == 0.4
    assert depth.max() == 1.0
    assert hazy.std() < PICTURE.std()


def test_low_light_follows_its_curve() -> None:
    dark = LowLight((0.8, 0.8), (2.0, 2.0), (0.0, 0.0))(PICTURE, seeded())
    # measured: 8.4e-8
    np.testing.assert_allclose(dark, (0.8 * PICTURE.astype(np.float64)) ** 2, rtol=0, atol=3e-7)
    assert dark.mean() < 0.6 * PICTURE.mean()


def test_the_five_of_dcpt_have_the_classifiers_names() -> None:
    assert tuple(dcpt_degradations()) == CLASSES[5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianNoise((50, 0)), r"GaussianNoise: sigma must be .*, not \(50, 0\)"),
        (lambda: GaussianNoise((0, 300)), "within 0 to 255"),
        (lambda: GaussianNoise(rounded=2.0), "rounded must be .*, not 2.0"),
        (lambda: Jpeg((0, 50)), r"Jpeg: quality must be .*, not \(0, 50\)"),
        (lambda: MotionBlur((0.5, 3)), "MotionBlur: length"),
        (lambda: GaussianBlur((0.0, 1.0)), "GaussianBlur: sigma"),
        (lambda: Haze(airlight=(0.5, 1.5)), "Haze: airlight"),
        (lambda: LowLight(gain=(float("nan"), 1.0)), "LowLight: gain"),
    ],
)
def test_ranges_that_are_none_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
