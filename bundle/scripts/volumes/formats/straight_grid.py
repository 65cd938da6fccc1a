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

"""The voxel size and the origin of a volume, for formats that have no place for a rotation."""

from __future__ import annotations

import numpy as np


def straight_grid(affine: np.ndarray) -> tuple[list[float], list[float]]:
    """
    Return the part of an affine that a format without rotations can store.

    Args:
        affine: 4x4.

    Returns:
        The voxel size (x, y, z), and the place of the center of the first voxel; 0 where the axes are turned or
        mirrored, since the place alone would then be wrong.
    """
    directions = np.asarray(affine, dtype=float)[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    straight = np.allclose(directions, np.diag(sizes), rtol=0, atol=1e-6 * float(sizes.min()))
    return sizes.tolist(), affine[:3, 3].tolist() if straight else [0.0, 0.0, 0.0]
