# SPDX-License-Identifier: Apache-2.0
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
