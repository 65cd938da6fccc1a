# SPDX-License-Identifier: Apache-2.0
"""How the training stages apply their networks, with networks whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sample_volumes import volume, with_spacing

from scripts import lattice
from scripts.errors import InputError
from scripts.inferers import (
    MARGIN,
    NoiseInferer,
    PseudoVolumeInferer,
    RestorationInferer,
    SequenceInferer,
    margins,
)
from scripts.sde import MeanRevertingSDE
from scripts.transforms.axial_interpolate import axial_interpolate

SDE = MeanRevertingSDE()


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


# ---- edges of restored images ----------------------------------------------------------------------------------------


class Oracle:
    """Predicts the noise that leads from ``truth`` to what it is shown, beyond the edges too, but errs where convolutions see zeros."""

    def __init__(self, truth: torch.Tensor, multiple: int, reach: int = 2) -> None:
        self.truth = truth
        self.multiple = multiple
        self.reach = reach
        self.seen: list[torch.Size] = []

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.shape[-2:])
        height, width = self.truth.shape[-2:]
        top, bottom, left, right = margins(height, width, self.multiple)
        truth = F.pad(self.truth, (left, right, top, bottom), mode="replicate")
        difference, mu = x.chunk(2, 1)
        noise = (difference - SDE.decay(t) * (truth - mu)) / SDE.std(t)
        # a padded convolution of ones counts the pixels in its reach: fewer at the rim
        side = 2 * self.reach + 1
        counts = F.conv2d(torch.ones_like(noise), torch.ones(1, 1, side, side), padding=self.reach)
        return noise * counts / side**2


@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("height, width", [(32, 48), (33, 41), (30, 97), (3, 9), (1, 2)])
def test_images_are_restored_up_to_their_edges(height, width, multiple):
    """A network whose zero padding spoils its rim: the image itself is as good at its edges as inside."""
    truth = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0))
    mu = F.avg_pool2d(F.pad(truth, (1, 1, 1, 1), mode="replicate"), 3, 1)
    network = Oracle(truth, multiple)
    restored = RestorationInferer(SDE, evaluations=4)(mu, network)
    assert restored.shape == truth.shape
    assert torch.allclose(restored, truth, atol=1e-3)
    assert all(side % multiple == 0 for shape in network.seen for side in shape)  # so the network appends nothing


@pytest.mark.parametrize("multiple", [1, 8, 16])
@pytest.mark.parametrize("side", [1, 7, 16, 520])
def test_continuation_is_long_enough_and_keeps_the_place_of_recorded_slices(side, multiple):
    top, bottom, left, right = margins(side, side, multiple)
    assert min(top, bottom, left, right) >= MARGIN
    assert left % multiple == 0 and (side + left + right) % multiple == (side + top + bottom) % multiple == 0
    assert max(top, bottom, right) < MARGIN + multiple and left < MARGIN + multiple


def test_continuation_has_noise_of_its_own():
    """Not the last row's, repeated: a network has never seen that."""
    seen = []

    def network(x, t):
        seen.append(x[:, :1])
        return keep(x, t)

    RestorationInferer(SDE, evaluations=1)(torch.zeros(1, 1, 8, 8), network)
    start = seen[0][0, 0]
    assert start.shape == (8 + 2 * MARGIN, 8 + 2 * MARGIN)
    assert len(torch.unique(start)) == start.numel()
