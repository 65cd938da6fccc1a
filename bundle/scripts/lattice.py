# SPDX-License-Identifier: Apache-2.0
"""The lattice: the one place where an index is computed from an axial factor.

K input slices with a gap of r fine voxels become ``floor((K - 1) * r) + 1`` output slices. Output index j lies at j / r
input slices; with an integer r the original slice i is found again at j = i * r. The first voxel keeps its
place and the axial voxel size is divided by r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from scripts.errors import InputError

INPUT_SLICES = 4
"""Number of neighbouring slices a stage III network reads; the new slice lies between the middle two."""

# A position closer than this to a slice is that slice: it absorbs the rounding of j / r, and is far below any real gap.
_TOLERANCE = 1e-6


_MOST_SLICES = 2**53  # beyond them indices are no longer exact


class Position(NamedTuple):
    """Place of one output slice: ``depth`` (in [0, 1)) of the way from input slice ``interval`` to the next one."""

    interval: int
    depth: float


def check_factor(factor: float) -> float:
    """Return ``factor`` as a float.

    Raises:
        InputError: if it is not a finite number above 1.
    """
    try:
        value = float(factor)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 1):
        raise InputError(f"--factor {factor}: give a number above 1, how many times finer Z should become")
    return value


def isotropic_factor(spacing: Sequence[float]) -> float:
    """Factor that makes the axial voxel as small as the lateral one.

    Args:
        spacing: voxel size (x, y, z), any unit.

    Raises:
        InputError: if the volume is already isotropic (or finer in Z).
    """
    x, y, z = (float(s) for s in spacing)
    factor = z / math.sqrt(x * y)
    if factor <= 1 + _TOLERANCE:
        raise InputError(
            f"the voxel size is {z:g} in Z and {x:g} x {y:g} in XY, so nothing is coarse in Z: "
            "give --factor, or correct the voxel size with --spacing [z,y,x]"
        )
    # Voxel sizes are often stored in single precision: 80.000001 / 10 is meant to be 8, 3.3333332 to be 10 / 3.
    fraction = float(Fraction(factor).limit_denominator(1000))
    return fraction if abs(fraction - factor) < _TOLERANCE * factor else factor


def axial_step(factor: float, prior_factor: float) -> float:
    """Lateral voxels that one axial voxel spans once a volume of ``factor`` was upsampled ``prior_factor`` times.

    Raises:
        InputError: unless ``prior_factor`` is the factor itself, or a whole number that divides it (1 divides any).
    """
    step = factor / prior_factor if prior_factor > 0 else math.nan
    if prior_factor in (1, factor) or (step >= 1 and step.is_integer() and float(prior_factor).is_integer()):
        return step
    raise InputError(
        f"--prior_factor {prior_factor:g} does not divide the factor {factor:g}: give a divisor of it, or 1"
    )


def output_size(slices: int, factor: float) -> int:
    """Number of output slices for ``slices`` input slices at ``factor``."""
    last = (slices - 1) * factor
    if last > _MOST_SLICES:
        raise InputError(f"--factor {factor:g}: gives more slices than any machine holds; give a lower --factor")
    return math.floor(last + _TOLERANCE) + 1


def position(index: int, factor: float) -> Position:
    """Where output slice ``index`` lies among the input slices."""
    place = index / factor
    interval = math.floor(place + _TOLERANCE)
    depth = place - interval
    return Position(interval, 0.0 if depth < _TOLERANCE else depth)


def positions(slices: int, factor: float) -> list[Position]:
    """The place of each output slice, in order."""
    return [position(j, factor) for j in range(output_size(slices, factor))]


def kept_indices(slices: int, factor: float) -> list[int]:
    """Output indices that coincide with an original slice."""
    return [j for j, place in enumerate(positions(slices, factor)) if place.depth == 0.0]


def decimated_indices(size: int, factor: float) -> list[int]:
    """Indices kept when a fine axis of ``size`` voxels is sampled every ``factor`` voxels (nearest for a real factor)."""
    return [round(i * factor) for i in range(math.floor((size - 1) / factor + _TOLERANCE) + 1)]


def covered_size(size: int, factor: float) -> int:
    """Voxels of a fine axis of ``size`` voxels up to the last one that its decimation keeps: what a reconstruction of that can cover."""
    return output_size(len(decimated_indices(size, factor)), factor)


def kept_among(size: int, factor: float) -> list[int]:
    """Indices of a fine axis of ``size`` voxels that coincide with an original slice, see :func:`kept_indices`."""
    return kept_indices(len(decimated_indices(size, factor)), factor)


def window(interval: int, slices: int) -> list[int]:
    """Indices of the four slices around the gap after slice ``interval``; beyond the ends the edge slice is repeated."""
    first = interval - (INPUT_SLICES // 2 - 1)
    return [min(max(first + i, 0), slices - 1) for i in range(INPUT_SLICES)]


def padded_size(size: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``size``."""
    return -(-size // multiple) * multiple


class Span(NamedTuple):
    """One side of a tile: what is computed, and the part of it that is kept, its core.

    Attributes:
        begin, end: what is computed, all of it in the plane. It begins on the pooling grid, and seen from the other end of the plane it
            ends on the grid.
        core_begin, core_end: what is kept.
    """

    begin: int
    end: int
    core_begin: int
    core_end: int

    @property
    def core(self) -> tuple[int, int]:
        """Begin and end of the core."""
        return self.core_begin, self.core_end


def smallest_tile(halo: int, multiple: int) -> int:
    """The smallest side of a tile that :func:`tiles` accepts where a plane has to be cut."""
    return 2 * padded_size(halo, multiple) + multiple


def tiles(part: tuple[int, int], size: int, tile: int, halo: int, multiple: int) -> list[Span]:
    """Cut a part of a plane side into the fewest tiles, and of those the smallest: 1000 voxels are three tiles of 424, not of 520.

    The cores of the tiles are the part, without gaps and without overlap. Every tile reaches ``halo`` voxels over its core, or to the
    edge of the plane, so it agrees with the whole up to what reaches over the halo. For that its cells of averages must be those of the
    plane: it begins on the pooling grid, and the last one ends with the plane, for what lay beyond would be averaged too. All are of one
    size, which leaves the same rest as the plane on division by the grid; then a plane that is flipped, whose grid begins at its other
    end, has its tiles on the grid as well.

    Args:
        part: first index of the part, and the one after its last; (0, ``size``) is the whole side.
        size: of the side.
        tile: largest side of a tile, rounded up to a multiple; up to ``multiple`` - 1 voxels more where it takes them to leave the same
            rest as ``size``.
        halo: margin around a core, rounded up to a multiple.
        multiple: the pooling grid.

    Raises:
        InputError: if no core is left in a tile.
    """
    halo, rest = padded_size(halo, multiple), size % multiple

    def fitting(length: int) -> int:
        """The smallest number from ``length`` up that leaves the same rest as the plane."""
        return padded_size(length - rest, multiple) + rest

    first = max(0, part[0] - halo) // multiple * multiple
    last = min(size, fitting(part[1] + halo))
    length, side, shared = last - first, fitting(tile), fitting(2 * halo)
    if tile > 2 * halo:
        side = max(side, shared + multiple)
    if length <= side:
        return [Span(first, last, *part)]
    if tile <= 2 * halo:
        raise InputError(
            f"--tile {tile}: nothing is left of a tile between margins of {halo} voxels: give at least "
            f"{smallest_tile(halo, multiple)}, or a smaller --halo"
        )
    number = -(-(length - shared) // (side - shared))
    side = fitting(-(-(length + (number - 1) * shared) // number))
    steps = (length - side) // multiple
    begins = [first + i * steps // (number - 1) * multiple for i in range(number)]
    # Neighbours meet in the middle of what they share.
    borders = [part[0], *((begin + side + after) // 2 for begin, after in zip(begins, begins[1:])), part[1]]
    return [Span(begin, begin + side, *core) for begin, core in zip(begins, zip(borders, borders[1:]))]


def refined_affine(affine: np.ndarray, factor: float) -> np.ndarray:
    """Affine of the output: the same origin, the axial voxel divided by ``factor``. (..., 4, 4) -> (..., 4, 4)."""
    result = np.array(affine, dtype=np.float64)
    result[..., :3, 2] /= factor
    return result


def coarsened_affine(affine: np.ndarray, factor: float) -> np.ndarray:
    """Affine after keeping every ``factor``-th slice. (..., 4, 4) -> (..., 4, 4)."""
    return refined_affine(affine, 1.0 / factor)


def voxel_size(affine: np.ndarray) -> tuple[float, float, float]:
    """Voxel size (x, y, z) of an affine (4, 4)."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)
