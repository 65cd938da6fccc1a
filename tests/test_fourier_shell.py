# SPDX-License-Identifier: Apache-2.0
"""Fourier shell correlation against volumes whose agreement is known at every frequency."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.evaluation.fourier_shell import Curve, shell_correlation

CUBE = (64, 60, 48)
ISOTROPIC = (10.0, 10.0, 10.0)


def noise(shape=CUBE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(128, 20, shape)


def frequencies(shape, spacing) -> list[np.ndarray]:
    """Of the three axes, in cycles per unit of length, to be broadcast against a spectrum."""
    return list(np.meshgrid(*(np.fft.fftfreq(n, s) for n, s in zip(shape, spacing)), indexing="ij", sparse=True))


def filtered(volume: np.ndarray, response: np.ndarray) -> np.ndarray:
    return np.fft.ifftn(np.fft.fftn(volume) * response).real


@pytest.mark.parametrize("shape", [CUBE, (33, 40, 27)])
def test_identical_volumes_never_cross(shape):
    for curve in shell_correlation(noise(shape), noise(shape), ISOTROPIC).values():
        assert curve.correlation == pytest.approx(np.ones(len(curve.correlation)), abs=1e-5)
        assert curve.resolution(0.143) == curve.resolution(0.5) == (20.0, False)


def test_brightness_and_contrast_do_not_matter():
    volume = noise().astype(np.float32)
    for curve in shell_correlation(volume, 3 * volume - 1000, ISOTROPIC).values():
        assert not curve.resolution(0.5).crossed


@pytest.mark.parametrize("spacing", [ISOTROPIC, (10.0, 10.0, 20.0), (0.5, 0.4, 0.6)])
@pytest.mark.parametrize("waves", [2.5, 4.0])
def test_low_pass_is_found_where_it_cuts(spacing, waves):
    """The same sharp cut in all directions, at a multiple of the coarsest voxel; the taper mixes neighboring shells."""
    length = waves * max(spacing)
    volume = noise()
    fx, fy, fz = frequencies(CUBE, spacing)
    blurred = filtered(volume, fx**2 + fy**2 + fz**2 < length**-2)
    for curve in shell_correlation(blurred, volume, spacing).values():
        for threshold in (0.143, 0.5):
            found = curve.resolution(threshold)
            shell = curve.frequency[1] - curve.frequency[0]
            assert found.crossed and 1 / found.length == pytest.approx(1 / length, abs=1.5 * shell)


def test_axial_blur_shows_along_the_axis():
    volume = noise()
    blurred = filtered(volume, abs(frequencies(CUBE, ISOTROPIC)[2]) < 1 / 80)
    curves = shell_correlation(blurred, volume, ISOTROPIC)
    axial, whole = (curves[name].resolution(0.5) for name in ("axial", "whole"))
    # a wave just inside the cone is 1 / cos(30 degrees) shorter than its axial part
    assert axial.crossed and 80 * 0.85 < axial.length < 80 * 1.05
    assert whole.length < 0.7 * axial.length
    # seen from a sharp direction, the same volumes agree down to the voxel
    turned = shell_correlation(blurred.transpose(2, 1, 0), volume.transpose(2, 1, 0), ISOTROPIC)
    assert turned["axial"].resolution(0.5) == (20.0, False)


def test_two_noisy_copies_cross_where_the_signal_drowns():
    """Signal of Gaussian spectrum S, white noise N in each copy: FSC = S / (S + N), with S / N = 1 / 6 at 0.143."""
    fx, fy, fz = frequencies(CUBE, (1, 1, 1))
    signal_to_noise = 100 * np.exp(-30 * (fx**2 + fy**2 + fz**2))
    signal = filtered(np.random.default_rng(0).normal(size=CUBE), np.sqrt(signal_to_noise))
    a, b = (signal + np.random.default_rng(seed).normal(size=CUBE) for seed in (1, 2))
    for curve in shell_correlation(a, b, (1, 1, 1)).values():
        for threshold in (0.143, 0.5):
            drowned = np.sqrt(30 / np.log(100 * (1 - threshold) / threshold))
            assert curve.resolution(threshold).length == pytest.approx(drowned, rel=0.06)
    # against the clean signal FSC = sqrt(S / (S + N)), so 0.5 there is one third here
    clean = shell_correlation(a, signal, (1, 1, 1))["whole"]
    assert clean.resolution(0.5).length == pytest.approx(np.sqrt(30 / np.log(300)), rel=0.06)


def test_lengths_scale_with_the_voxel():
    a, b = noise(), noise() + noise(seed=1)
    small = shell_correlation(a, b, (1, 1, 2))
    large = shell_correlation(a, b, (10, 10, 20))
    for name in ("whole", "axial"):
        assert large[name].finest == pytest.approx(40)
        assert large[name].frequency == pytest.approx(small[name].frequency / 10)
        assert large[name].correlation == pytest.approx(small[name].correlation)


def test_whole_ends_where_the_coarsest_axis_does():
    curves = shell_correlation(noise(), noise(), (20, 10, 10))
    assert curves["whole"].frequency[-1] <= 1 / 40 < curves["axial"].frequency[-1] <= 1 / 20


def test_unrelated_volumes_resolve_nothing():
    curve = shell_correlation(noise(), noise(seed=1), ISOTROPIC)["whole"]
    assert abs(curve.correlation[5:]).max() < 0.2
    assert curve.resolution(0.5).length > 200


def test_a_constant_volume_resolves_nothing():
    flat = np.full(CUBE, 7, np.uint8)
    for curve in shell_correlation(flat, noise(), ISOTROPIC).values():
        assert not curve.correlation.any()
        assert curve.resolution(0.143).crossed


def test_first_crossing_is_interpolated():
    curve = Curve(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.6, 0.2, 0.8]), 2.0)
    assert curve.resolution(0.5).crossed and curve.resolution(0.5).length == pytest.approx(1 / 0.225)
    assert curve.resolution(0.143) == (2.0, False)
    assert curve.resolution(0.95).crossed and curve.resolution(0.95).length == pytest.approx(1 / 0.05)


def test_wrong_volumes():
    with pytest.raises(InputError, match="64 x 60 x 48 voxels, the other 63 x 60 x 48"):
        shell_correlation(noise(), noise()[1:], ISOTROPIC)
    with pytest.raises(InputError, match="at least 8 voxels"):
        shell_correlation(noise()[:7], noise()[:7], ISOTROPIC)
    with pytest.raises(InputError, match="at least 8 voxels"):
        shell_correlation(noise()[0], noise()[0], ISOTROPIC)
