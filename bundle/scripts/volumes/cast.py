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

"""Voxels in the type of a file."""

from __future__ import annotations

import numpy as np


def cast(array: np.ndarray, target: np.dtype) -> np.ndarray:
    """
    Return voxels in another type. For a type of integers they are rounded and clipped to its range.

    Args:
        array: voxels of any shape.
        target: integers of up to 32 bits, or floats.

    Raises:
        ValueError: there are NaN or infinite values, which integers cannot hold.
    """
    if array.dtype == target:
        return array
    if target.kind not in "ui":
        return array.astype(target)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"the volume has NaN or infinite values, which {target} cannot hold")
        # float32 cannot hold the limits of 32-bit integers
        array = np.rint(array, dtype=np.float64 if target.itemsize > 2 else None)
    limits = np.iinfo(target)
    return np.clip(array, limits.min, limits.max).astype(target)
