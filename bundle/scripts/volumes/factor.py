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
from scripts.errors import InputError, warn_once
from scripts.volumes.header import Header

_CUBIC = 0.02  # voxels whose sides differ by less look cubic


def factor_of(header: Header, factor: float | None, target_spacing: float | None = None) -> float:
    """
    Return the factor: the given one, the one that gives the target spacing, or the one that makes the voxels of the
    header isotropic.

    Args:
        header: of the volume.
        factor: the option ``--factor``.
        target_spacing: the option ``--target_spacing``: distance of the slices of the result in the unit of the header.

    Raises:
        InputError: it is not above 1, both are given, the voxel size is not known, or nothing is coarse in Z.
    """
    if target_spacing is not None:
        return factor_to(target_spacing, header.voxel_size[2], header.unit, factor)
    if factor is not None:
        return lattice.check_factor(factor)
    return header.isotropic_factor


def factor_to(target_spacing: float, spacing: float, unit: str, factor: float | None = None) -> float:
    """
    Return the factor between two distances of slices.

    Args:
        target_spacing: of the result.
        spacing: of the volume.
        unit: of both.
        factor: the option ``--factor``, which may not be given as well.

    Raises:
        InputError: a factor is given as well, the voxel size is not known, or the result would not be finer.
    """
    if factor is not None:
        raise InputError(
            f"--factor {factor:g} and --target_spacing {target_spacing:g} both say how fine Z becomes: give one of them"
        )
    if unit == "pixel":
        raise InputError(
            f"--target_spacing {target_spacing:g}: the voxel size is not known; give it with --spacing '[z,y,x]', or "
            "give --factor"
        )
    if not 0 < target_spacing < spacing:
        raise InputError(
            f"--target_spacing {target_spacing:g}: the slices are {spacing:g} {unit} apart; give a distance below that"
        )
    return lattice.exact_factor(spacing / target_spacing)


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
    Describe on one line the voxels that this factor gives; None if they are cubic or their size is not known.

    Args:
        header: of the input.
        factor: how many times finer Z becomes.
    """
    x, y, z = header.voxel_size
    if header.has_no_voxel_size:
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
