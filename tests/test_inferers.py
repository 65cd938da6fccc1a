# SPDX-License-Identifier: Apache-2.0
"""How volumes are walked: the axial inferer and stage II, with networks whose answer is known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.inferers.utils import _get_scan_interval

from scripts import lattice
from scripts.errors import InputError
from scripts.inferers import (
    AxialInferer,
    NoiseInferer,
    PseudoVolumeInferer,
    RestorationInferer,
    SequenceInferer,
    _shares,
)
from scripts.networks.aenet import AENet, ChannelGate
from scripts.sde import MeanRevertingSDE
from scripts.transforms.axial_interpolate import axial_interpolate

SDE = MeanRevertingSDE()


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def tissue(*shape: int) -> torch.Tensor:
    """Smooth structure of a few voxels, as images have: (1, 1, X, Y, K) in [0, 1]."""
    noise = torch.nn.functional.avg_pool3d(volume(*(side + 4 for side in shape)), 5, 1)
    return (noise - noise.amin()) / (noise.amax() - noise.amin())


def with_spacing(data: torch.Tensor, *spacing: float) -> MetaTensor:
    """A batch of one volume, collated as the data loader does."""
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([5.0, 6.0, 7.0])
    return list_data_collate([{"image": MetaTensor(data[0], affine=affine)}])["image"]


@pytest.fixture(scope="module")
def untrained() -> AENet:
    return AENet(widths=(2, 2, 2, 2)).eval()


@pytest.fixture(scope="module")
def trained() -> AENet:
    """Residuals of a few per cent of the range, with gates that follow the image from cell to cell."""
    torch.manual_seed(0)
    network = AENet(widths=(4, 4, 6, 8)).eval()
    with torch.no_grad():
        network.head.weight.normal_(std=0.5)
        network.head.weight -= network.head.weight.mean(
            (2, 3), keepdim=True
        )  # no offset: what is added varies in space
        for module in network.modules():
            if isinstance(module, ChannelGate):
                module.mix.weight.normal_(std=2.0)
                module.mix.bias.copy_(0.5 * torch.randn(len(module.mix.weight)))  # type: ignore[union-attr]
    return network


def reconstruct(network, data, factor, **options):
    return AxialInferer(factor, progress=False, **options)(data, network)


# ---- AxialInferer ----------------------------------------------------------------------------------------------------


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


# ---- sequences and noise ---------------------------------------------------------------------------------------------


def test_sequence_inferer_is_the_network_one_by_one(trained):
    slab = torch.rand(2, 1, 32, 32, 4)
    depth, gap = torch.tensor([[0.2, 0.5, 0.8], [0.1, 0.4, 0.9]]), torch.tensor([4.0, 9.0])
    with torch.no_grad():
        result = SequenceInferer()(slab, trained, depth, gap)
        assert result.shape == (2, 3, 32, 32)
        for b in range(2):
            for d in range(3):
                expected = trained(slab[b : b + 1], depth[b, d], gap[b])
                assert torch.allclose(result[b, d], expected[0, 0], atol=1e-5)


def test_mixed_precision_stays_close(trained):
    data = tissue(32, 32, 3)
    whole = reconstruct(trained, data, 4)
    half = reconstruct(trained, data, 4, amp=True)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.05


def test_noise_inferer():
    result = NoiseInferer(amp=True)(
        torch.ones(2, 2, 4, 4), lambda x, t: x[:, :1] * t.view(-1, 1, 1, 1), torch.tensor([1, 3])
    )
    assert result.dtype == torch.float32 and result[:, 0, 0, 0].tolist() == [1, 3]


# ---- restoration -----------------------------------------------------------------------------------------------------


def keep(x, t):
    """Predicted noise that leaves x - mu as the sampler finds it, so that the result shows the drawn noise."""
    return 0.5 * x[:, :1] * SDE.std(t) / SDE.delta**2


def test_restoration_is_seeded_by_run_and_draw():
    mu = torch.full((1, 1, 8, 8), 0.5)
    first = RestorationInferer(SDE, evaluations=4, seed=1)(mu, keep, 5)
    assert torch.equal(first, RestorationInferer(SDE, evaluations=4, seed=1)(mu, keep, 5))
    assert not torch.allclose(first, RestorationInferer(SDE, evaluations=4, seed=2)(mu, keep, 5), atol=1e-3)
    assert not torch.allclose(first, RestorationInferer(SDE, evaluations=4, seed=1)(mu, keep, 6), atol=1e-3)


@pytest.mark.parametrize("sampler, evaluations", [("posterior", 7), ("reverse_sde", 100)])
def test_restoration_takes_the_asked_evaluations(sampler, evaluations):
    seen = []

    def network(x, t):
        seen.append(int(t[0]))
        return torch.zeros_like(x[:, :1])

    RestorationInferer(SDE, sampler, evaluations)(torch.zeros(1, 1, 4, 4), network)
    assert len(seen) == evaluations and seen[0] == 100


def test_restoration_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="--sampler euler: .* reverse_sde or posterior|posterior or reverse_sde"):
        RestorationInferer(SDE, "euler")
    with pytest.raises(InputError, match="--evaluations 8: .* 100"):
        RestorationInferer(SDE, "reverse_sde", 8)


# ---- stage II --------------------------------------------------------------------------------------------------------


class Restore:
    """In place of the prior: an offset that tells XZ from YZ (5 and 8 voxels wide), and the draws it was called with."""

    def __init__(self, offset: float = 0.0, fail_at: int | None = None) -> None:
        self.offset = offset
        self.fail_at = fail_at
        self.calls: list[int] = []

    def __call__(self, mu, network, draw):
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(draw)
        return mu + self.offset * (1 if mu.shape[2] == 8 else -0.5)


def pseudo(restore, folder, upsampling=4, batch_size=3, run_id="a") -> PseudoVolumeInferer:
    return PseudoVolumeInferer(restore, upsampling, batch_size, folder / "progress", run_id)


def test_upsampling_of_one_is_the_volume_itself(tmp_path):
    data = with_spacing(volume(5, 6, 4), 1, 1, 8)
    result = pseudo(None, tmp_path, upsampling=1)(data, None)
    assert torch.equal(result[:, :1].as_tensor(), data.as_tensor())
    assert not result[:, 1].any()
    assert np.allclose(np.asarray(result.affine), np.asarray(data.affine))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("upsampling", [4, 2.5])
def test_restoration_that_changes_nothing_gives_cubic_interpolation(tmp_path, upsampling):
    data = with_spacing(volume(5, 8, 4), 1, 2, 8)
    result = pseudo(Restore(), tmp_path, upsampling)(data, None)
    expected = axial_interpolate(data.as_tensor(), upsampling)
    assert torch.allclose(result[:, :1].as_tensor(), expected, atol=6e-4)  # kept in half precision
    assert result[:, 1].max() == 0
    affine = np.asarray(result.affine).reshape(-1, 4, 4)[0]
    assert lattice.voxel_size(affine) == pytest.approx((1, 2, 8 / upsampling))
    assert list(tmp_path.iterdir()) == []


def test_volume_is_the_mean_and_the_map_the_difference(tmp_path):
    data = volume(5, 8, 4)
    result = pseudo(Restore(0.1), tmp_path)(data, None)
    assert torch.allclose(result[0, 0], axial_interpolate(data, 4)[0, 0] + 0.025, atol=1e-3)
    assert torch.allclose(result[0, 1], torch.tensor(0.15), atol=1e-3)


def test_each_plane_is_restored_in_its_place(tmp_path):
    """The offset grows with the plane: along Y for XZ slices, along X for YZ slices."""

    count = {5: 0, 8: 0}

    def numbered(mu, network, draw):
        assert mu.shape[1:] in ((1, 5, 9), (1, 8, 9))
        width = mu.shape[2]
        first, count[width] = count[width], count[width] + len(mu)
        return torch.zeros_like(mu) + {5: 0.01, 8: 0.1}[width] * (first + torch.arange(len(mu))).view(-1, 1, 1, 1)

    result = pseudo(numbered, tmp_path)(volume(5, 8, 3), None)[0, 0]
    expected = (0.01 * torch.arange(8)[None, :, None] + 0.1 * torch.arange(5)[:, None, None]) / 2
    assert torch.allclose(result, expected.expand_as(result), atol=1e-3)


def test_no_two_batches_share_their_noise(tmp_path):
    """The start noise of all batches of both orientations, as the sampler draws it."""
    starts = []

    def network(x, t):
        starts.append(x[0, 0, :5].clone())
        return keep(x, t)

    restore = RestorationInferer(SDE, evaluations=1)
    pseudo(restore, tmp_path, batch_size=1)(volume(5, 8, 4), network)
    assert len(starts) == 13
    for i, start in enumerate(starts):
        assert not any(torch.allclose(start, other, atol=1e-3) for other in starts[:i])


@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 4])
def test_interrupted_run_goes_on(tmp_path, fail_at):
    data = volume(5, 8, 4)
    whole = Restore(0.1)
    expected = pseudo(whole, tmp_path)(data, None)
    assert len(whole.calls) == 5  # 8 planes of XZ and 5 of YZ, 3 at a time

    with pytest.raises(KeyboardInterrupt):
        pseudo(Restore(0.1, fail_at), tmp_path)(data, None)
    assert (tmp_path / "progress").is_dir()
    rest = Restore(0.1)
    result = pseudo(rest, tmp_path)(data, None)
    assert torch.equal(result, expected)
    assert rest.calls == whole.calls[fail_at:]
    assert not (tmp_path / "progress").exists()


def test_slices_of_another_run_are_not_taken_up(tmp_path):
    data = volume(5, 8, 4)
    with pytest.raises(KeyboardInterrupt):
        pseudo(Restore(0.3, fail_at=4), tmp_path, run_id="a")(data, None)
    other = Restore(0.1)
    result = pseudo(other, tmp_path, run_id="b")(data, None)
    assert len(other.calls) == 5
    assert torch.equal(result, pseudo(Restore(0.1), tmp_path)(data, None))


def test_first_run_after_a_second_one_that_was_stopped_at_once(tmp_path):
    """Run a is interrupted, run b starts over it and is interrupted before its first batch, run a is repeated."""
    data = volume(5, 8, 4)
    expected = pseudo(Restore(0.1), tmp_path)(data, None)
    for run_id, fail_at in (("a", 2), ("b", 0)):
        with pytest.raises(KeyboardInterrupt):
            pseudo(Restore(0.1, fail_at), tmp_path, run_id=run_id)(data, None)
    assert torch.equal(pseudo(Restore(0.1), tmp_path, run_id="a")(data, None), expected)
