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

"""How much memory and disk stage II takes, reckoned from the shape of a volume before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scripts import lattice
from scripts.volumes.memory import check_memory

# Bytes for each voxel of the pseudo-HR volume.
_IN_MEMORY = 16  # the volume and the disagreement in single precision, and their copies for the files
_IN_STRIPS = 48  # the same, with the strips that wait to be written
_ON_DISK = 4  # finished slices, of two orientations in half precision, until the volume is written
_MOST_VOXELS = 2**23  # of a strip, before and after the restoration


class Room(NamedTuple):
    """Bytes that stage II takes at the most, but for those of a batch and of the result on the disk.

    Attributes:
        memory: of the machine.
        disk: for finished slices.
    """

    memory: int
    disk: int


def room_for(shape: Sequence[int], prior_factor: float) -> Room:
    """The room that the restoration of a volume in strips takes.

    Args:
        shape: (X, Y, K) of the volume, in voxels.
        prior_factor: k; with 1 nothing is restored.
    """
    if prior_factor == 1:
        return Room(0, 0)
    x, y, z = restored_shape(shape, prior_factor)
    return Room(_IN_STRIPS * x * min(y, rows_of_strips(shape, prior_factor)) * z, _ON_DISK * x * y * z)


def rows_of_strips(shape: Sequence[int], prior_factor: float) -> int:
    """Rows along Y of the strips in which a pseudo-HR volume is made of a volume (X, Y, K)."""
    x, _, z = restored_shape(shape, prior_factor)
    return max(1, _MOST_VOXELS // (x * z))


def slices_at_once(slice_voxels: int, batch_size: int) -> int:
    """Slices of a volume, of so many voxels each, that are read together: whole batches."""
    return max(1, _MOST_VOXELS // slice_voxels // batch_size) * batch_size


def restored_shape(shape: Sequence[int], prior_factor: float) -> tuple[int, int, int]:
    """(X, Y, Z) of the pseudo-HR volume of a volume (X, Y, K)."""
    x, y, slices = shape
    return x, y, lattice.output_size(slices, prior_factor)


def check_restoration_memory(shape: Sequence[int], prior_factor: float, whole: bool = False) -> None:
    """Check that memory holds the restoration of a volume (X, Y, K), in strips or as a ``whole``.

    Raises:
        InputError: it does not.
    """
    what, advice = f"--prior_factor {prior_factor:g}: stage II would need", "give a lower one, or cut the volume"
    in_memory = _IN_MEMORY * math.prod(restored_shape(shape, prior_factor))
    check_memory(in_memory if whole else room_for(shape, prior_factor).memory, what, advice)
