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
_ON_DISK = 4  # finished slices, of two orientations in half precision, until the volume is written


class Room(NamedTuple):
    """Bytes that stage II takes at the most, but for those of a batch and of the result on the disk.

    Attributes:
        memory: of the machine.
        disk: for finished slices.
    """

    memory: int
    disk: int


def room_for(shape: Sequence[int], prior_factor: float) -> Room:
    """The room that the restoration of a volume takes.

    Args:
        shape: (X, Y, K) of the volume, in voxels.
        prior_factor: k; with 1 nothing is restored.
    """
    if prior_factor == 1:
        return Room(0, 0)
    voxels = math.prod(restored_shape(shape, prior_factor))
    return Room(_IN_MEMORY * voxels, _ON_DISK * voxels)


def restored_shape(shape: Sequence[int], prior_factor: float) -> tuple[int, int, int]:
    """(X, Y, Z) of the pseudo-HR volume of a volume (X, Y, K)."""
    x, y, slices = shape
    return x, y, lattice.output_size(slices, prior_factor)


def check_restoration_memory(shape: Sequence[int], prior_factor: float) -> None:
    """Check that memory holds the restoration of a volume (X, Y, K).

    Raises:
        InputError: it does not.
    """
    what, advice = f"--prior_factor {prior_factor:g}: stage II would need", "give a lower one, or cut the volume"
    check_memory(room_for(shape, prior_factor).memory, what, advice)
