# SPDX-License-Identifier: Apache-2.0
"""How a volume is walked: the axial inferer, with networks whose answer is known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.inferers.utils import _get_scan_interval
from sample_volumes import tissue, volume, with_spacing

from scripts import lattice
from scripts.errors import InputError
from scripts.reconstruction import AxialInferer, _shares
from scripts.transforms.axial_interpolate import axial_interpolate


def reconstruct(network, data, factor, **options):
    return AxialInferer(factor, progress=False, **options)(data, network)


@pytest.mark.parametrize("slices, factor", [(2, 8), (4, 5), (4, 2.5), (5, 10 / 3), (6, 1.3)])
def test_untrained_network_gives_linear_interpolation_everywhere(untrained, slices, factor):
    """Every interval, the first and the last included, on integer and real factors."""
    data = volume(10, 13, slices)
    result = reconstruct(untrained, data, factor)
    assert result.shape == (1, 1, 10, 13, lattice.output_size(slices, factor))
    assert torch.allclose(result, axial_interpolate(data, factor, "linear"), atol=1e-5)


@pytest.mark.parametrize("factor", [3, 2.5])
def test_originals_are_verbatim(trained, factor):
    data = tissue(32, 40, 7)
    result = reconstruct(trained, data, factor)
    kept = lattice.kept_indices(7, factor)
    assert torch.equal(result[..., kept], data[..., [round(j / factor) for j in kept]])
    inserted = [j for j in range(result.shape[-1]) if j not in kept]
    change = (result - axial_interpolate(data, factor, "linear"))[..., inserted].abs().mean((0, 1, 2, 3))
    assert (change > 1e-3).all()  # the network has had its say in every other slice


def test_each_slice_comes_from_its_own_window(trained):
    """Against the network called by hand, slice by slice."""
    data, factor = tissue(32, 32, 5), 2.5
    result = reconstruct(trained, data, factor)
    for j, place in enumerate(lattice.positions(5, factor)):
        if place.depth > 0:
            slab = data[..., lattice.window(place.interval, 5)]
            with torch.no_grad():
                expected = trained(slab, torch.tensor(place.depth), torch.tensor(factor))
            assert torch.allclose(result[..., j], expected, atol=1e-5), j


@pytest.mark.parametrize("factor", [8, 6.5])
def test_affine_is_refined(untrained, factor):
    result = reconstruct(untrained, with_spacing(volume(6, 7, 4), 2, 3, 26), factor)
    affine = np.asarray(result.affine).reshape(-1, 4, 4)[0]
    assert lattice.voxel_size(affine) == pytest.approx((2, 3, 26 / factor))
    assert affine[:3, 3].tolist() == [5, 6, 7]


def test_without_factor_the_voxel_becomes_a_cube(untrained):
    result = reconstruct(untrained, with_spacing(volume(6, 7, 4), 4, 4, 26), None)
    assert result.shape[-1] == 20  # 6.5
    assert lattice.voxel_size(np.asarray(result.affine).reshape(-1, 4, 4)[0]) == pytest.approx((4, 4, 4))


@pytest.mark.parametrize("data", [with_spacing(volume(6, 7, 4), 4, 4, 4), volume(6, 7, 4)])
def test_without_factor_a_cube_is_refused(untrained, data):
    with pytest.raises(InputError, match="--factor"):
        reconstruct(untrained, data, None)


@pytest.mark.parametrize("factor", [1, 0.5, float("nan")])
def test_impossible_factor(factor):
    with pytest.raises(InputError, match="--factor"):
        AxialInferer(factor)


def test_factor_outside_the_trained_range_warns(untrained, caplog):
    with caplog.at_level(logging.WARNING):
        reconstruct(untrained, volume(6, 7, 2), 6.5, gap_range=(2, 12))
        assert not caplog.records
        reconstruct(untrained, volume(6, 7, 2), 13, gap_range=(2, 12))
    assert "factor 13 is outside the range 2 to 12" in caplog.text


@pytest.mark.parametrize("depth_batch", [1, 3])
def test_depth_batch_does_not_matter(trained, depth_batch):
    data = tissue(32, 37, 3)
    whole = reconstruct(trained, data, 6.5, depth_batch=16)
    assert torch.allclose(reconstruct(trained, data, 6.5, depth_batch=depth_batch), whole, atol=1e-6)


def test_tiled_equals_untiled(trained):
    """Tiles at x = 0, 64 and 96, 96 wide, on an image that grows brighter along x.

    At its own edge a tile pads where its neighbour has an image, so it is wrong there by as much as the network adds to linear
    interpolation; but its Gaussian weight there is a few thousandths of the neighbour's, and on average next to nothing is
    left. Where only one tile reaches, nothing but rounding may remain: an average over the tile, in place of fixed cells, would
    show there.
    """
    factor = 2
    data = tissue(192, 40, 3) * torch.linspace(0.3, 1, 192).view(1, 1, -1, 1, 1)
    whole = reconstruct(trained, data, factor, tile=192)
    tiled = reconstruct(trained, data, factor, tile=96)
    residual = (whole - axial_interpolate(data, factor, "linear"))[0, 0, :, :, 1]
    difference = (whole - tiled)[0, 0, :, :, 1].abs()
    assert 0.01 < residual.std() < 0.1
    assert 0 < difference.max() < 0.5 * residual.abs().max()
    assert difference.mean() < 0.02 * residual.std()
    assert max(difference[:32].max(), difference[-32:].max()) < 5e-4 * residual.std()


@pytest.mark.parametrize("tile", [32, 64])
def test_tiles_of_an_untrained_network_leave_no_seam(untrained, tile):
    data = volume(100, 70, 3)
    result = reconstruct(untrained, data, 4, tile=tile)
    assert torch.allclose(result, axial_interpolate(data, 4, "linear"), atol=1e-5)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
def test_tiles_begin_on_the_pooling_grid(overlap):
    """MONAI takes the overlap as a share and must arrive at the very steps that were planned."""
    for size in range(33, 3000, 61):
        for tile in (32, 96, 256, 512):
            plan = lattice.tiling(size, tile, overlap, 32)
            if plan.number > 1:
                padded = lattice.padded_size(size, 32)
                (interval,) = _get_scan_interval((padded,), (plan.side,), 1, _shares([plan]))
                assert interval == plan.step, (size, tile)


def test_mixed_precision_stays_close(trained):
    data = tissue(32, 32, 3)
    whole = reconstruct(trained, data, 4)
    half = reconstruct(trained, data, 4, amp=True)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.05
