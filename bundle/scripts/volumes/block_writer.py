# SPDX-License-Identifier: Apache-2.0
"""What takes the blocks of a volume that is being written."""

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
