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

"""What is known of a volume without its voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scripts import lattice
from scripts.errors import InputError, warn_once
from scripts.lattice import Turn
from scripts.volumes.formats.base import Stack


class Header(NamedTuple):
    """
    What is known of a volume without its voxels.

    Attributes:
        shape: number of voxels (x, y, z).
        dtype: NumPy's name of the file's type of voxel.
        affine: 4x4, with the voxel size.
        unit: of the affine: "nanometer", "micrometer", "millimeter", or "pixel" with voxels of size 1 when nothing is
            known.
        axis: which axis of the file is Z of the volume, "z", "y" or "x"; shape and affine are those of the volume.
    """

    shape: tuple[int, int, int]
    dtype: str
    affine: np.ndarray
    unit: str
    axis: str = "z"

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size (x, y, z) in ``unit``."""
        return lattice.voxel_size(self.affine)

    @property
    def isotropic_factor(self) -> float:
        """
        Factor that makes the voxels isotropic, see :func:`scripts.lattice.isotropic_factor`.

        Raises:
            InputError: nothing is coarse in Z.
        """
        return lattice.isotropic_factor(self.voxel_size)

    @property
    def has_no_voxel_size(self) -> bool:
        """Whether nothing is known of the voxel size."""
        return self.unit == "pixel" and self.voxel_size == (1, 1, 1)

    def refined(self, factor: float) -> Header:
        """Header of a volume whose Z is ``factor`` times finer."""
        x, y, slices = self.shape
        shape = (x, y, lattice.output_size(slices, factor))
        return self._replace(shape=shape, affine=lattice.refined_affine(self.affine, factor))


def header_of(stack: Stack, voxel_size: tuple[float, float, float] | None, file: Path, axis: str = "z") -> Header:
    """
    Return the header of an open volume, and warn where its voxel size is in doubt.

    Args:
        stack: the volume.
        voxel_size: (x, y, z) that replaces the one in the file, None to keep that.
        file: for the errors.
        axis: of the file that becomes Z.

    Raises:
        InputError: the sizes, the type of voxel or the voxel size cannot be used.
    """
    turn = Turn.of(axis)
    x, y, z = turn.to_volume([int(size) for size in stack.shape])
    if stack.dtype.kind not in "uif":
        raise InputError(f"{file}: has voxels of type {stack.dtype}; save it as grayscale integers or floats")
    if z < 2 or 0 in (x, y):
        along = "" if axis == "z" else f" along {axis.upper()}"
        raise InputError(f"{file}: has {z} slice{along}; at least 2 are needed")
    affine = np.eye(4) if stack.affine is None else stack.affine
    if voxel_size is not None:
        affine, unit = _with_voxel_size(affine, voxel_size), stack.unit or "micrometer"
    else:
        if stack.doubt is not None:
            warn_once(f"{file}: {stack.doubt}; give --spacing")
        if not _has_voxel_size(affine):
            where = f" ({stack.source})" if stack.source else ""
            raise InputError(
                f"{file}: its header has a voxel size that is not positive{where}; give --spacing '[z,y,x]'"
            )
        unit = stack.unit or "pixel"
    return Header((x, y, z), stack.dtype.newbyteorder("=").name, turn.affine_of_volume(affine), unit, axis)


def check_spacing(spacing: Sequence[float] | None) -> tuple[float, float, float] | None:
    """
    Return the option ``--spacing`` [z, y, x] as a voxel size (x, y, z), None when it was not given.

    Raises:
        InputError: it is not three positive numbers.
    """
    if spacing is None:
        return None
    try:
        z, y, x = (float(size) for size in spacing)
    except (TypeError, ValueError):
        z = y = x = 0.0
    if isinstance(spacing, str) or not all(0 < size < float("inf") for size in (z, y, x)):
        raise InputError(f"--spacing {spacing}: three positive numbers are needed, such as --spacing '[0.5,0.1,0.1]'")
    return x, y, z


def _has_voxel_size(affine: np.ndarray) -> bool:
    """Whether the axes of an affine have a length that can be computed with."""
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.isfinite(affine).all() and np.isfinite(lengths).all() and (lengths > 0).all())


def _with_voxel_size(affine: np.ndarray, voxel_size: tuple[float, float, float]) -> np.ndarray:
    """Return the affine with the same directions and origin and another voxel size (x, y, z)."""
    if not _has_voxel_size(affine):
        return np.diag([*voxel_size, 1.0])
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    result = affine.copy()
    result[:3, :3] = directions * voxel_size
    return result
