# SPDX-License-Identifier: Apache-2.0
"""How the training stages apply their networks, with networks whose answer is known."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sample_volumes import volume, with_spacing
from scripts import lattice
from scripts.diffusion.noise import NoiseInferer
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.restoration import MARGIN, RestorationInferer, margins
from scripts.diffusion.room import room_for
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError
from scripts.training.sequence_inferer import SequenceInferer
from scripts.transforms.axial_interpolate import axial_interpolate

SDE = MeanRevertingSDE()


# ---- sequences and noise ---------------------------------------------------------------------------------------------


def test_sequence_inferer_is_the_network_one_by_one(trained):
    window = torch.rand(2, 1, 32, 32, 4)
    relative_depth, factor = torch.tensor([[0.2, 0.5, 0.8], [0.1, 0.4, 0.9]]), torch.tensor([4.0, 9.0])
    with torch.no_grad():
        result = SequenceInferer()(window, trained, relative_depth, factor)
        assert result.shape == (2, 3, 32, 32)
        for b in range(2):
            for d in range(3):
                expected = trained(window[b : b + 1], relative_depth[b, d], factor[b])
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
    first = RestorationInferer(SDE, num_steps=4, seed=1)(mu, keep, 5)
    assert torch.equal(first, RestorationInferer(SDE, num_steps=4, seed=1)(mu, keep, 5))
    assert not torch.allclose(first, RestorationInferer(SDE, num_steps=4, seed=2)(mu, keep, 5), atol=1e-3)
    assert not torch.allclose(first, RestorationInferer(SDE, num_steps=4, seed=1)(mu, keep, 6), atol=1e-3)


@pytest.mark.parametrize("sampler, num_steps", [("posterior", 7), ("reverse_sde", 100)])
def test_restoration_takes_the_asked_evaluations(sampler, num_steps):
    seen = []

    def network(x, t):
        seen.append(int(t[0]))
        return torch.zeros_like(x[:, :1])

    RestorationInferer(SDE, sampler, num_steps)(torch.zeros(1, 1, 4, 4), network)
    assert len(seen) == num_steps and seen[0] == 100


def test_restoration_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="--sampler euler: .* reverse_sde or posterior|posterior or reverse_sde"):
        RestorationInferer(SDE, "euler")
    with pytest.raises(InputError, match="--num_steps 8: .* 100"):
        RestorationInferer(SDE, "reverse_sde", 8)


# ---- stage II --------------------------------------------------------------------------------------------------------


class Restore:
    """In place of the prior: an offset that tells XZ from YZ (5 and 8 voxels wide), and the draws it was
    called with."""

    def __init__(self, offset: float = 0.0, fail_at: int | None = None) -> None:
        self.offset = offset
        self.fail_at = fail_at
        self.calls: list[int] = []

    def __call__(self, mu, network, draw):
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(draw)
        return mu + self.offset * (1 if mu.shape[2] == 8 else -0.5)


def pseudo(restore, folder, prior_factor=4, batch_size=3, seed=0) -> PseudoVolumeInferer:
    return PseudoVolumeInferer(restore, prior_factor, batch_size, folder / "progress", {"seed": seed})


def test_upsampling_of_one_is_the_volume_itself(tmp_path):
    data = with_spacing(volume(5, 6, 4), 1, 1, 8)
    result: Any = pseudo(None, tmp_path, prior_factor=1)(data, NO_NETWORK)
    assert torch.equal(result[:, :1].as_tensor(), data.as_tensor())
    assert not result[:, 1].any()
    assert np.allclose(np.asarray(result.affine), np.asarray(data.affine))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prior_factor", [4, 2.5])
def test_restoration_that_changes_nothing_gives_cubic_interpolation(tmp_path, prior_factor):
    data = with_spacing(volume(5, 8, 4), 1, 2, 8)
    result: Any = pseudo(Restore(), tmp_path, prior_factor)(data, NO_NETWORK)
    expected = axial_interpolate(data.as_tensor(), prior_factor)
    assert torch.allclose(result[:, :1].as_tensor(), expected, atol=6e-4)  # kept in half precision
    assert result[:, 1].max() == 0
    affine = np.asarray(result.affine).reshape(-1, 4, 4)[0]
    assert lattice.voxel_size(affine) == pytest.approx((1, 2, 8 / prior_factor))


def test_volume_is_the_mean_and_the_map_the_difference(tmp_path):
    data = volume(5, 8, 4)
    result = pseudo(Restore(0.1), tmp_path)(data, NO_NETWORK)
    assert torch.allclose(result[0, 0], axial_interpolate(data, 4)[0, 0] + 0.025, atol=1e-3)
    assert torch.allclose(result[0, 1], torch.tensor(0.15), atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])  # the last one is none in half precision
def test_restored_slices_that_are_not_finite_are_an_error(tmp_path, value):
    with pytest.raises(InputError, match="XZ slices from 0 on came out of the network as NaN or infinite"):
        pseudo(Restore(value), tmp_path)(volume(5, 8, 4), NO_NETWORK)
    assert not (tmp_path / "progress" / "xz.json").exists()  # so that nothing is taken up


def test_each_plane_is_restored_in_its_place(tmp_path):
    """The offset grows with the plane: along Y for XZ slices, along X for YZ slices."""

    count = {5: 0, 8: 0}

    def numbered(mu, network, draw):
        assert mu.shape[1:] in ((1, 5, 9), (1, 8, 9))
        width = mu.shape[2]
        first, count[width] = count[width], count[width] + len(mu)
        return torch.zeros_like(mu) + {5: 0.01, 8: 0.1}[width] * (first + torch.arange(len(mu))).view(-1, 1, 1, 1)

    result = pseudo(numbered, tmp_path)(volume(5, 8, 3), NO_NETWORK)[0, 0]
    expected = (0.01 * torch.arange(8)[None, :, None] + 0.1 * torch.arange(5)[:, None, None]) / 2
    assert torch.allclose(result, expected.expand_as(result), atol=1e-3)


@pytest.mark.parametrize("prior_factor", [1, 4])
@pytest.mark.parametrize(
    "shape, words",
    [((2, 1, 5, 8, 4), "at a time, not"), ((1, 2, 5, 8, 4), "at a time, not"), ((1, 5, 8, 4), r"volume\[None\]")],
)
def test_one_volume_is_restored_at_a_time(tmp_path, prior_factor, shape, words):
    with pytest.raises(InputError, match=words) as error:
        pseudo(Restore(), tmp_path, prior_factor)(torch.rand(shape), NO_NETWORK)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_no_two_batches_share_their_noise(tmp_path):
    """The start noise of all batches of both orientations, as the sampler draws it."""
    starts = []

    def network(x, t):
        starts.append(x[0, 0, :5].clone())
        return keep(x, t)

    restore = RestorationInferer(SDE, num_steps=1)
    pseudo(restore, tmp_path, batch_size=1)(volume(5, 8, 4), network)
    assert len(starts) == 13
    for i, start in enumerate(starts):
        assert not any(torch.allclose(start, other, atol=1e-3) for other in starts[:i])


def start(data, folder, fail_at: int | None) -> Restore:
    """Restore the volume; interrupted where ``fail_at`` says."""
    restore = Restore(0.1, fail_at)
    if fail_at is None:
        pseudo(restore, folder)(data, NO_NETWORK)
    else:
        with pytest.raises(KeyboardInterrupt):
            pseudo(restore, folder)(data, NO_NETWORK)
    return restore


@pytest.fixture
def expected(tmp_path) -> torch.Tensor:
    return pseudo(Restore(0.1), tmp_path / "whole")(DATA, NO_NETWORK)


DATA: torch.Tensor = volume(5, 8, 4)
NO_NETWORK: Any = None
CALLS = [0, 6, 12, 1, 7]  # 8 planes of XZ and 5 of YZ, 3 at a time


@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 4, None])
def test_interrupted_run_goes_on(tmp_path, expected, fail_at):
    first = start(DATA, tmp_path, fail_at)
    assert first.calls == CALLS[:fail_at]
    done = pseudo(None, tmp_path).restored_before((5, 8))
    assert sum(done.values()) == [0, 3, 6, 8, 11, 13][5 if fail_at is None else fail_at]
    rest = Restore(0.1)
    inferer = pseudo(rest, tmp_path)
    assert torch.equal(inferer(DATA, NO_NETWORK), expected)
    assert rest.calls == CALLS[len(first.calls) :]  # what was finished is kept until the result is safe
    assert (tmp_path / "progress").is_dir()
    inferer.forget()
    assert not (tmp_path / "progress").exists()
    inferer.forget()


def test_each_batch_is_kept_as_soon_as_it_is_restored(tmp_path):
    """A kill, which nothing can answer, takes away no more than the batch under way."""
    restore = Restore(0.1)
    kept = []

    def watch(mu, network, draw):
        kept.append(sum(pseudo(None, tmp_path).restored_before((5, 8)).values()))
        return restore(mu, network, draw)

    pseudo(watch, tmp_path)(DATA, NO_NETWORK)
    assert kept == [0, 3, 6, 8, 11]


def test_slices_of_another_run_are_not_taken_up(tmp_path, expected):
    start(DATA, tmp_path, 4)
    for attempt in (lambda inferer: inferer(DATA, NO_NETWORK), PseudoVolumeInferer.check_progress):
        with pytest.raises(
            InputError, match="progress holds slices of a run with seed 0, not 1: give the same options"
        ):
            attempt(pseudo(Restore(0.1), tmp_path, seed=1))
    rest = Restore(0.1)
    assert torch.equal(pseudo(rest, tmp_path)(DATA, NO_NETWORK), expected)  # and are not lost
    assert rest.calls == CALLS[4:]


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage, anew",
    [
        (lambda folder: flip(folder / "xz.npy", -1), [12]),
        (lambda folder: flip(folder / "xz.npy", 128), [0]),
        (lambda folder: flip(folder / "xz.npy", 5), []),  # what an .npy file begins with is written anew
        (lambda folder: os.truncate(folder / "xz.npy", 600), [6, 12]),
        (lambda folder: (folder / "xz.npy").unlink(), [0, 6, 12]),
        (lambda folder: (folder / "xz.json").unlink(), [0, 6, 12]),
        (lambda folder: (folder / "yz.npy").write_bytes(b""), [1]),
    ],
)
def test_damaged_slices_are_restored_anew(tmp_path, expected, damage, anew):
    start(DATA, tmp_path, 4)
    damage(tmp_path / "progress")
    rest = Restore(0.1)
    assert torch.equal(pseudo(rest, tmp_path)(DATA, NO_NETWORK), expected)
    assert rest.calls == sorted([*anew, *CALLS[4:]], key=CALLS.index)


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "[1, 2]", "3", "null", "{}", '{"planes": 3, "resume_must_match": {"seed": 0}}', '{"checksums": [1]}',
     '{"checksums": 3, "resume_must_match": {"seed": 0}}', '{"checksums": [], "resume_must_match": 1}',
     '{"run": "x", "planes": 3}'],
)  # fmt: skip
def test_damaged_record_of_slices_is_named(tmp_path, content):
    start(DATA, tmp_path, 1)
    (tmp_path / "progress" / "xz.json").write_text(content)
    with pytest.raises(InputError) as caught:
        pseudo(Restore(), tmp_path)(DATA, NO_NETWORK)
    assert str(tmp_path / "progress") in str(caught.value) and "delete it" in str(caught.value)


def test_checksums_of_another_type_mean_damage(tmp_path, expected):
    start(DATA, tmp_path, 3)
    file = tmp_path / "progress" / "xz.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "checksums": ["one", None, *document["checksums"][2:], 1, 2]}))
    rest = Restore(0.1)
    assert torch.equal(pseudo(rest, tmp_path)(DATA, NO_NETWORK), expected)
    assert rest.calls == [0, 6, 1, 7]


@pytest.mark.parametrize(
    "call, fails_at", [("posix_fallocate", 0), ("posix_fallocate", 1), ("pwrite", 0), ("pwrite", 4)]
)
def test_a_full_disk_is_one_line_and_everything_goes_on(tmp_path, monkeypatch, expected, call, fails_at):
    calls, original = [], getattr(os, call)

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) > fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    first = Restore(0.1)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError) as caught:
        pseudo(first, tmp_path)(DATA, NO_NETWORK)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "progress")) and "\n" not in message
    assert message.endswith("no space left on device; make room and run the same command again to go on")
    monkeypatch.setattr(os, call, original)
    rest = Restore(0.1)
    assert torch.equal(pseudo(rest, tmp_path)(DATA, NO_NETWORK), expected)
    assert len(rest.calls) == 5 - max(0, len(first.calls) - 1)  # all but the batch that could not be written is kept


def test_a_file_system_that_cannot_take_room_beforehand(tmp_path, monkeypatch, expected):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert torch.equal(pseudo(Restore(0.1), tmp_path)(DATA, NO_NETWORK), expected)


def test_memory_that_does_not_suffice_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.volumes.memory.free_memory", lambda: 1000)
    restore = Restore()
    with pytest.raises(InputError, match="--prior_factor 4: stage II would need .* give a lower one"):
        pseudo(restore, tmp_path)(DATA, NO_NETWORK)
    assert restore.calls == [] and list(tmp_path.iterdir()) == []


def test_room_of_stage_ii():
    """The memory does not grow with the volume but for its planes; on the disk two orientations in half precision."""
    assert room_for((5, 8, 4), 4) == (5 * 8 * 13 * 48, 5 * 8 * 13 * 4)
    assert room_for((5, 8, 4), 1) == (0, 0)
    small, large = room_for((512, 512, 64), 8), room_for((512, 8 * 512, 64), 8)
    assert small.memory == large.memory < 48 * 2**23 and large.disk == 8 * small.disk


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_memory_that_does_not_suffice_for_a_batch(tmp_path, error):
    def restore(mu, network, draw):
        raise error

    with pytest.raises(InputError, match="--batch_size 3: the memory does not suffice for 3 slices at once"):
        pseudo(restore, tmp_path)(DATA, NO_NETWORK)


def test_another_error_of_the_restoration_stays_itself(tmp_path):
    def restore(mu, network, draw):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="^mat1 and mat2"):
        pseudo(restore, tmp_path)(DATA, NO_NETWORK)


# ---- edges of restored images ----------------------------------------------------------------------------------------


class Oracle:
    """Predicts the noise that leads from ``truth`` to what it is shown, beyond the edges too, but errs where
    convolutions see zeros."""

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
    restored = RestorationInferer(SDE, num_steps=4)(mu, network)
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

    RestorationInferer(SDE, num_steps=1)(torch.zeros(1, 1, 8, 8), network)
    start = seen[0][0, 0]
    assert start.shape == (8 + 2 * MARGIN, 8 + 2 * MARGIN)
    assert len(torch.unique(start)) == start.numel()
