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

"""A contiguous array in a file, of which boxes are mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np


class MappedArray:
    """
    Reads boxes of an array; any number of threads may do so.

    It is mapped again for each box, since mapped pages count as memory of the process.

    Args:
        path: the file.
        dtype: of the voxels, with their byte order.
        begin: byte of the file where the voxels begin.
        shape: of the array.
        order: whether its slowest ("C") or its fastest axis ("F") comes first.
    """

    def __init__(
        self, path: Path, dtype: np.dtype, begin: int, shape: tuple[int, ...], order: Literal["C", "F"] = "C"
    ) -> None:
        self.path = path
        self.dtype = dtype
        self.begin = begin
        self.shape = shape
        self.order = order

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        """Return a box, as a view of the file."""
        mapped: np.ndarray = np.memmap(self.path, self.dtype, "r", self.begin, self.shape, self.order)
        return np.asarray(mapped[index])
