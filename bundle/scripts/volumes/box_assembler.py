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

"""Assembles blocks that arrive in any order and size into the boxes in which they are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scripts.lattice import Box
from scripts.volumes.cast import cast


class BoxAssembler:
    """
    Assembles blocks into boxes; each box is stored once, as soon as it is complete.

    Args:
        boxes: parts of a volume that cover it without overlap.
        dtype: of the voxels; blocks of another type are converted, see :func:`scripts.volumes.cast.cast`.
        store: called with a box and its voxels (x, y, z).
    """

    def __init__(self, boxes: Sequence[Box], dtype: np.dtype, store: Callable[[Box, np.ndarray], None]) -> None:
        self._boxes = boxes
        self._dtype = dtype
        self._store = store
        self._filled: dict[Box, tuple[np.ndarray, int]] = {}

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Write a block, see :meth:`scripts.volumes.block_writer.BlockWriter.write`; no voxel twice."""
        begin = (x, y, z)
        end = [first + size for first, size in zip(begin, block.shape, strict=True)]
        for box in self._boxes:
            sides = [(max(a, low), min(b, high)) for a, b, (low, high) in zip(begin, end, box, strict=True)]
            if any(low >= high for low, high in sides):
                continue
            part = block[tuple(slice(low - a, high - a) for (low, high), a in zip(sides, begin, strict=True))]
            voxels, left = self._filled.pop(box, (None, math.prod(box.sizes)))
            if voxels is None:  # z slowest in memory, as in the files
                voxels = np.zeros(box.sizes[::-1], self._dtype).transpose(2, 1, 0)
            voxels[
                tuple(slice(low - first, high - first) for (low, high), (first, _) in zip(sides, box, strict=True))
            ] = cast(part, self._dtype)
            left -= part.size
            if left:
                self._filled[box] = voxels, left
            else:
                self._store(box, voxels)

    def finish(self) -> None:
        """Store the boxes that are incomplete, with 0 for the voxels that were never written."""
        for box in self._boxes:
            if box in self._filled:
                self._store(box, self._filled.pop(box)[0])
