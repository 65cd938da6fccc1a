# SPDX-License-Identifier: Apache-2.0
"""Plane-wise scores against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.evaluation.plane_scores import best_baseline, gains, plane_scores

SHAPE = (14, 16, 17)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(50, 200, SHAPE).astype(np.uint8)


def scores(psnr: float, ssim: float) -> dict:
    planes = ("xy", "xz", "yz")
    return {"psnr": dict.fromkeys(planes, psnr), "ssim": dict.fromkeys(planes, ssim)}


def test_identical_volumes(truth):
    result = plane_scores(truth, truth, 8)
    assert set(result["psnr"].values()) == {math.inf}
    assert list(result["ssim"].values()) == pytest.approx([1, 1, 1])


def test_known_error_gives_known_psnr(truth):
    result = plane_scores(truth.astype(float) + 5, truth, 8)
    assert list(result["psnr"].values()) == pytest.approx([10 * math.log10(255**2 / 25)] * 3)
    halved = plane_scores(truth.astype(float) + 5, truth, 8, data_range=127.5)
    assert halved["psnr"]["xz"] == pytest.approx(result["psnr"]["xz"] - 20 * math.log10(2))


def test_unsigned_differences_do_not_wrap():
    dark, bright = np.full(SHAPE, 3, np.uint8), np.full(SHAPE, 5, np.uint8)
    assert plane_scores(dark, bright, 8)["psnr"]["yz"] == pytest.approx(10 * math.log10(255**2 / 4))


def test_scores_are_means_over_slices(truth):
    """One half of the Y slices is off by 1 and the other by 10: the mean of the two PSNR, not that of the
    mean error."""
    image = truth.astype(float)
    image[:, :8] += 1
    image[:, 8:] += 10
    expected = (20 * math.log10(255) + 20 * math.log10(25.5)) / 2
    result = plane_scores(image, truth, 8)
    assert result["psnr"]["xz"] == pytest.approx(expected)
    assert result["psnr"]["xy"] == pytest.approx(10 * math.log10(255**2 / 50.5))


@pytest.mark.parametrize("factor, kept", [(8, [0, 8, 16]), (4, [0, 4, 8, 12, 16]), (6.5, [0, 13]), (2.4, [0, 12])])
def test_kept_slices_count_in_xz_and_yz_only(truth, factor, kept):
    base = truth.astype(float) + 2
    corrupted = base.copy()
    corrupted[:, :, kept] += 30
    before, after = plane_scores(base, truth, factor), plane_scores(corrupted, truth, factor)
    assert before["slices_scored"] == {"xy": 17 - len(kept), "xz": 16, "yz": 14}
    for measure in ("psnr", "ssim"):
        assert after[measure]["xy"] == before[measure]["xy"]
        assert after[measure]["xz"] < before[measure]["xz"]
        assert after[measure]["yz"] < before[measure]["yz"]


def test_other_slices_count_in_every_plane(truth):
    corrupted = truth.astype(float) + 2
    before = plane_scores(corrupted, truth, 8)
    corrupted[:, :, 5] += 30
    after = plane_scores(corrupted, truth, 8)
    assert all(after["psnr"][plane] < before["psnr"][plane] for plane in ("xy", "xz", "yz"))


def test_planes_follow_the_axes(truth):
    """An error on one YZ slice spoils that slice in YZ and a line of each slice in the others."""
    image = truth.astype(float) + 1
    image[3] += 50
    result = plane_scores(image, truth, 8)["psnr"]
    assert result["yz"] > result["xy"] == pytest.approx(result["xz"])


def test_an_empty_border_does_not_make_the_mean_infinite(truth):
    truth[0] = 0
    image = truth.astype(float)
    image[1:] += 5
    assert plane_scores(image, truth, 8)["psnr"]["yz"] == pytest.approx(10 * math.log10(255**2 / 25))


def test_wrong_volumes(truth):
    with pytest.raises(InputError, match="14 x 16 x 9 .* 14 x 16 x 17"):
        plane_scores(truth[:, :, :9], truth, 8)
    with pytest.raises(InputError, match="at least 11"):
        plane_scores(truth[:10], truth[:10], 8)
    with pytest.raises(InputError, match="at least 11"):
        plane_scores(truth[0], truth[0], 8)
    with pytest.raises(InputError, match="factor"):
        plane_scores(truth, truth, 1)


def test_baseline_is_the_best_of_each_plane_and_measure():
    linear, cubic = scores(25.0, 0.70), scores(24.0, 0.65)
    cubic["psnr"]["xz"], cubic["ssim"]["yz"] = 26.0, 0.75
    best = best_baseline({"linear": linear, "cubic": cubic})
    assert best["psnr"] == {"xy": 25.0, "xz": 26.0, "yz": 25.0}
    assert best["ssim"] == {"xy": 0.70, "xz": 0.70, "yz": 0.75}


def test_gains():
    assert gains(scores(27.5, 0.75), scores(26.0, 0.70))["psnr"]["xy"] == pytest.approx(1.5)
    assert gains(scores(26.0, 0.68), scores(26.0, 0.70))["ssim"]["yz"] == pytest.approx(-0.02)
    assert gains(scores(math.inf, 1), scores(math.inf, 1))["psnr"]["xz"] == 0
