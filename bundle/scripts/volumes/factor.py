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

"""The factor of a volume: output over input sampling along Z."""

from __future__ import annotations

import math

from scripts import lattice
from scripts.errors import warn_once
from scripts.volumes.header import Header

_CUBIC = 0.02  # voxels whose sides differ by less look cubic


def factor_of(header: Header, factor: float | None) -> float:
    """Return the factor: the given one, or the one that makes the voxels of the header isotropic.

    Raises:
        InputError: it is not above 1, or nothing is coarse in Z.
    """
    if factor is not None:
        return lattice.check_factor(factor)
    return header.isotropic_factor


def warn_unless_cubic(header: Header, factor: float) -> None:
    """Warn of a factor that does not make the voxels of a volume cubic.

    Args:
        header: of the volume.
        factor: how many times finer Z becomes.
    """
    why = why_not_cubic(header, factor)
    if why is not None:
        warn_once(why)


def why_not_cubic(header: Header, factor: float) -> str | None:
    """
    Return on one line what becomes of the voxels with this factor, None if they become cubic or have no known size.

    Args:
        header: of the input.
        factor: how many times finer Z becomes.
    """
    x, y, z = header.voxel_size
    if header.unit == "pixel" and (x, y, z) == (1, 1, 1):
        return None
    lateral, fine = math.sqrt(x * y), z / factor
    made = f"x{factor:g} makes voxels of {x:.4g} x {y:.4g} x {fine:.4g} {header.unit} (x, y, z), which are not cubic"
    if abs(fine - lateral) > _CUBIC * lateral:
        wanted = z / lateral
        if wanted > 1 + _CUBIC:
            return f"{made}; x{wanted:.4g} would{' come closest' if abs(x - y) > _CUBIC * lateral else ''}"
        return f"{made}: by the voxel size nothing is coarse in Z; is it right? --spacing '[z,y,x]' corrects it"
    if abs(x - y) > _CUBIC * lateral:
        return f"{made}, for X and Y differ; no factor makes them so"
    return None
