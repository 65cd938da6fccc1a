# SPDX-License-Identifier: Apache-2.0
"""The factor of a volume: output over input sampling along Z."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from scripts import lattice
from scripts.errors import warn_once
from scripts.volumes.header import Header
from scripts.volumes.reading import read_header

_CUBIC = 0.02  # voxels whose sides differ by less look cubic


def axial_factor(
    path: str | os.PathLike,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    axes: str | None = None,
) -> float:
    """Return the factor: the given one, or the one that makes the voxels of a file isotropic.

    Args:
        path: volume.
        spacing: voxel size [z, y, x] in place of the file's.
        factor: real number above 1.
        axes: of the file, in place of what it says.

    Raises:
        InputError: the factor is not above 1, or the file cannot be used.
    """
    header = read_header(path, spacing, axes)  # also with a factor: a file that cannot be used is found before any work
    return factor_of(header, factor)


def factor_of(header: Header, factor: float | None) -> float:
    """Return the factor: the given one, or the one that makes the voxels of the header isotropic.

    Raises:
        InputError: it is not above 1, or nothing is coarse in Z.
    """
    if factor is not None:
        return lattice.check_factor(factor)
    return header.isotropic_factor


def warn_unless_cubic(
    path: str | os.PathLike, factor: float, spacing: Sequence[float] | None = None, axes: str | None = None
) -> None:
    """Warn of a factor that does not make the voxels of a file cubic.

    Args:
        path, spacing, axes: see :func:`scripts.volumes.reading.open_volume`.
        factor: how many times finer Z becomes.

    Raises:
        InputError: the file cannot be used.
    """
    why = why_not_cubic(read_header(path, spacing, axes), factor)
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
