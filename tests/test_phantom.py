# SPDX-License-Identifier: Apache-2.0
"""The embedded sample: deterministic, alike along X, Y and Z, made of shapes, with the noise that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.phantom import tissue, write_sample
from scripts.volumes.reading import read_volume

SHAPE = (96, 96, 96)


@pytest.fixture(scope="module")
def clean() -> list[np.ndarray]:
    """Three tissues without noise, (X, Y, Z) float."""
    return [tissue(SHAPE, seed=seed, noise=0).astype(float) for seed in range(3)]


def correlation(volume: np.ndarray, axis: int, lag: int) -> float:
    a = np.moveaxis(volume, axis, 0)
    return float(np.corrcoef(a[:-lag].ravel(), a[lag:].ravel())[0, 1])


def test_same_seed_same_volume():
    first, again, other = tissue((40, 33, 25), seed=5), tissue((40, 33, 25), seed=5), tissue((40, 33, 25), seed=6)
    assert first.shape == (40, 33, 25) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 5


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 50, 3), (25, 24, 49)])
def test_any_size(shape):
    assert tissue(shape).shape == shape


@pytest.mark.slow
def test_gray_levels_of_stained_tissue(clean):
    for volume in clean:
        assert 110 < volume.mean() < 160 and 25 < volume.std() < 45
        assert np.percentile(volume, 1) > 40 and np.percentile(volume, 99) < 225  # nothing is clipped


@pytest.mark.slow
def test_isotropic():
    # One volume holds few cells: over seeds 0 to 3 the spread of the steps is .05, .06, .03 and .14. This pins seed 0,
    # to notice a change of the geometry; that no axis is special shows in the mean over many seeds alone.
    volume = tissue((160, 160, 160), noise=0).astype(np.float32)
    steps = np.array([np.diff(volume, axis=axis).std() for axis in range(3)])
    assert np.ptp(steps) / steps.mean() < 0.07
    for lag in (2, 4, 8):
        assert np.ptp([correlation(volume, axis, lag) for axis in range(3)]) < 0.04


def test_shapes_not_noise(clean):
    """Neighbors are nearly equal, membranes are a few voxels wide, and cells are some tens of voxels wide."""
    for volume in clean:
        for axis in range(3):
            assert correlation(volume, axis, 1) > 0.93
            assert 0.5 < correlation(volume, axis, 4) < 0.9
            assert abs(correlation(volume, axis, 40)) < 0.3


@pytest.mark.slow
def test_noise_is_independent_between_slices(clean):
    for sigma in (4.0, 8.0):
        noise = tissue(SHAPE, seed=0, noise=sigma) - clean[0]
        assert abs(noise.mean()) < 0.1
        assert noise.std() == pytest.approx(sigma, rel=0.05)
        assert abs(correlation(noise, 2, 1)) < 0.01


def test_interpolation_along_z_loses_something(clean):
    """Linear interpolation of every 8th slice is far worse than the noise and far better than nothing."""
    volume = clean[0][:, :, :89]
    kept = volume[:, :, ::8]
    d = np.arange(8) / 8
    between = kept[:, :, :-1, None] * (1 - d) + kept[:, :, 1:, None] * d
    error = (between.reshape(96, 96, 88) - volume[:, :, :88]).std()
    assert 8 < error < 0.8 * volume.std()


@pytest.mark.slow
def test_shapes_keep_their_physical_size():
    fine, coarse = tissue((64, 64, 64), noise=0, voxel_size=10), tissue((64, 64, 64), noise=0, voxel_size=20)
    assert correlation(coarse.astype(float), 0, 4) < correlation(fine.astype(float), 0, 4) - 0.15


@pytest.mark.parametrize(
    "options",
    [{"shape": (0, 8, 8)}, {"shape": (8, 8)}, {"shape": (8, 8, 8), "noise": -1}, {"shape": (8, 8, 8), "voxel_size": 0}],
)
def test_wrong_options(options):
    with pytest.raises(InputError):
        tissue(**options)


def test_write_sample(tmp_path):
    truth_path, low_path = write_sample(tmp_path / "new", size=(24, 20, 30), factor=8, seed=1)
    assert (truth_path.name, low_path.name) == ("sample_truth.tif", "sample_lowres.tif")
    truth, low = read_volume(truth_path), read_volume(low_path)
    assert truth.shape == (1, 24, 20, 25) and low.shape == (1, 24, 20, 4)
    np.testing.assert_array_equal(truth[..., ::8], low)
    np.testing.assert_array_equal(truth[0], tissue((24, 20, 25), seed=1))
    in_nm = {"nanometer": 1.0, "micrometer": 1e3}
    for volume, size in ((truth, 10), (low, 80)):
        assert volume.meta["dtype"] == "uint8"
        sizes = np.diag(np.asarray(volume.affine))[:3] * in_nm[volume.meta["unit"]]
        np.testing.assert_allclose(sizes, (10, 10, size), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 1},
        {"factor": 2.5},
        {"factor": 1e9},
        *(
            {"size": size}
            for size in [(24, 24, 8), (24, 24), (1e9, 1e9, 1e9), (10**7, 1, 9), (24.5, 24, 30), (-24, 24, 30)]
        ),
        *({"size": size} for size in ["24", 24, None, ("a", 24, 30), (float("nan"), 24, 30), (24, 24, float("inf"))]),
    ],
)
def test_write_sample_wrong_options(tmp_path, options):
    with pytest.raises(InputError):
        write_sample(tmp_path, **options)
    assert not list(tmp_path.iterdir())
