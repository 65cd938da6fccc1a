# SPDX-License-Identifier: Apache-2.0
"""Volumes that several tests read."""

from __future__ import annotations

import torch
from monai.data import MetaTensor, list_data_collate


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
