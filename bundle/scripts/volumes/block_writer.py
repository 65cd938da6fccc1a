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

"""The interface of the writers of volumes."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class BlockWriter(Protocol):
    """Takes the blocks of a volume, in any order."""

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """
        Write a block; one thread at a time may do so.

        Args:
            block: voxels (x, y, z). For a file of integers, floats are rounded and clipped to the range of its type.
            x, y, z: index of its first voxel in the volume.

        Raises:
            ValueError: the block has NaN or infinite values, which the type of the file does not hold.
            OSError: the disk is full, for instance.
        """
