# SPDX-License-Identifier: Apache-2.0
"""What every format gives of a volume that is open for reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Stack(NamedTuple):
    """An open volume, of which slices are read one at a time.

    Attributes:
        shape: number of voxels (x, y, z).
        dtype: of the voxels, in any byte order.
        affine: 4x4, None if the file has no voxel size.
        unit: of the affine, None if the file names none.
        read: gives slice z as an array (x, y).
        decoded: whether ``read`` decodes the whole slice, and by one thread at a time. Otherwise it gives a memory map, or a
            part of what is in memory already, to any number of threads.
        doubt: why the voxel size of the file is not used, or should not be, without the name of the file; None if it is right.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray | None
    unit: str | None
    read: Callable[[int], np.ndarray]
    decoded: bool
    doubt: str | None = None
