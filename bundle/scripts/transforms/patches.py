# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Cuts many patches out of a volume at once, for the transforms that draw them at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scripts.volumes.kept_volume import PatchSource


class Patch(NamedTuple):
    """Pixel (i, j) of a patch lies at voxel ``corner`` + i ``down`` + j ``across`` of a volume, (x, y, z).

    Attributes:
        corner: voxel of the first pixel of each plane, (N, 3).
        down: from a pixel to the one in the next row, (3,).
        across: from a pixel to the one in the next column, (3,).
    """

    corner: np.ndarray
    down: np.ndarray
    across: np.ndarray


def place_patch(
    planes: Sequence[int], dims: tuple[int, int, int], corner: Sequence[int], size: Sequence[int], flips: Sequence[bool]
) -> Patch:
    """A patch of several parallel planes, turned and flipped.

    Args:
        planes: indices of the planes.
        dims: axes of the volume (0 to 2) along which the rows follow one another, the columns, and the planes.
        corner: smallest coordinate of the patch along the axis of the rows and of the columns.
        size: voxels that the patch spans along the two.
        flips: whether to read rows and columns from their other end.
    """
    corners = np.zeros((len(planes), 3), np.int64)
    corners[:, dims[2]] = planes
    steps = np.zeros((2, 3), np.int64)
    for i in range(2):
        corners[:, dims[i]] = corner[i] + (size[i] - 1 if flips[i] else 0)
        steps[i, dims[i]] = -1 if flips[i] else 1
    return Patch(corners, steps[0], steps[1])


def cut_patches(volume: torch.Tensor | PatchSource, patches: Sequence[Patch], size: Sequence[int]) -> torch.Tensor:
    """The voxels of B patches of N planes each, gathered in a few operations on the volume's device.

    On a GPU, cutting one patch after the other would take longer than training on them.

    Args:
        volume: (X, Y, Z), or what reads patches of one.
        patches: B patches with the same number N of planes.
        size: (H, W) of a patch in voxels.

    Returns:
        (B, N, H, W).
    """
    if not isinstance(volume, torch.Tensor):
        corners, downs, acrosses = (np.stack(each) for each in zip(*patches))
        return volume.cut(corners, downs, acrosses, size)
    # one small table, because each copy to a GPU costs as much as the gathering
    tables = np.stack([np.concatenate([patch.corner, [patch.down, patch.across]]) for patch in patches])
    table = torch.from_numpy(tables).to(volume.device, non_blocking=True)
    corner, down, across = table[:, :-2, None, None], table[:, None, None, None, -2], table[:, None, None, None, -1]
    rows = torch.arange(size[0], device=volume.device)[:, None, None]
    columns = torch.arange(size[1], device=volume.device)[:, None]
    voxel = corner + rows * down + columns * across
    x, y, z = voxel.unbind(-1)
    return volume[x, y, z]
