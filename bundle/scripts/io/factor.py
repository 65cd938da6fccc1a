# SPDX-License-Identifier: Apache-2.0
"""The axial factor of a file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from scripts import lattice
from scripts.io import Header, read_header


def axial_factor(path: str | os.PathLike, spacing: Sequence[float] | None = None, factor: float | None = None) -> float:
    """How many times coarser Z is than XY: ``factor`` if given, otherwise from the voxel size.

    Args:
        path: volume.
        spacing: voxel size [z, y, x] in place of the file's.
        factor: real number above 1.

    Raises:
        InputError: if the factor is not above 1, or the file cannot be used.
    """
    header = read_header(path, spacing)  # also with a factor: a file that cannot be used is found before any work
    return factor_of(header, factor)


def factor_of(header: Header, factor: float | None) -> float:
    """The axial factor: the given one, or the one that makes the voxels of the header isotropic.

    Raises:
        InputError: it is not above 1, or nothing is coarse in Z.
    """
    if factor is not None:
        return lattice.check_factor(factor)
    return lattice.isotropic_factor(lattice.voxel_size(header.affine))
