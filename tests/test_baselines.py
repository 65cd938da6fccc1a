# SPDX-License-Identifier: Apache-2.0
"""The baseline of published code is off by what its documentation says, and ours is not."""

from __future__ import annotations

import pytest
import torch
from scripts import lattice
from scripts.evaluation.plane_scores import plane_scores
from scripts.transforms.axial_decimate import axial_decimate
from scripts.transforms.axial_interpolate import axial_interpolate

from benchmarks.paper.baselines import misaligned_interpolation

ALIGNED = {"bicubic": "cubic", "trilinear": "linear"}


@pytest.mark.parametrize("mode", ["bicubic", "trilinear"])
@pytest.mark.parametrize("factor, shift", [(8, 3.5), (5, 2.0), (2, 0.5)])
def test_published_interpolation_is_shifted(mode, factor, shift):
    """Where the center of one bright slice among dark ones comes to lie, of seven the middle one."""
    pulse = torch.zeros(1, 3, 4, 7)
    pulse[..., 3] = 1
    found, aligned = misaligned_interpolation(pulse, factor, mode), axial_interpolate(pulse, factor, ALIGNED[mode])
    assert found.shape == (1, 3, 4, 7 * factor)
    assert center(found) == pytest.approx(3 * factor + shift, abs=1e-3)
    assert center(aligned) == pytest.approx(3 * factor, abs=1e-3)


def center(volume: torch.Tensor) -> float:
    planes = volume.mean((0, 1, 2))
    return float((planes * torch.arange(len(planes))).sum() / planes.sum())


def test_planes_are_left_as_they_are():
    volume = torch.rand(2, 5, 7, 1, generator=torch.Generator().manual_seed(0))
    for mode in ("bicubic", "trilinear"):
        assert torch.allclose(misaligned_interpolation(volume, 3, mode), volume.expand(2, 5, 7, 3), atol=1e-6)


@pytest.mark.parametrize("mode", ["bicubic", "trilinear"])
def test_the_shift_costs_much_of_the_score(mode):
    x, y, z = (torch.arange(n, dtype=torch.float32) for n in (16, 16, 81))
    truth = 128 + 60 * torch.sin(x / 5)[:, None, None] * torch.cos(y / 4)[:, None] * torch.sin(z / 12)
    lowres = axial_decimate(truth[None], 8)
    aligned = axial_interpolate(lowres, 8, ALIGNED[mode])[0]
    shifted = misaligned_interpolation(lowres, 8, mode)[0, :, :, : lattice.output_size(lowres.shape[-1], 8)]
    scores = [plane_scores(volume.numpy(), truth.numpy(), 8)["psnr"] for volume in (aligned, shifted)]
    assert all(scores[0][plane] > scores[1][plane] + 5 for plane in ("xy", "xz", "yz"))


def test_unknown_mode():
    with pytest.raises(ValueError, match="nearest"):
        misaligned_interpolation(torch.rand(1, 3, 3, 3), 2, "nearest")
