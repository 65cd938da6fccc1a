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

"""The lattice: the one place where an index is computed from an axial factor.

K input slices that lie r fine voxels apart become ``floor((K - 1) * r) + 1`` output slices. Output index j lies at j / r
input slices; with an integer r the original slice i is found again at j = i * r. The first voxel keeps its
place and the axial voxel size is divided by r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scripts.errors import InputError

INPUT_SLICES = 4
"""Number of neighboring slices a stage III network reads; the new slice lies between the middle two."""

# A position closer than this to a slice is that slice: it absorbs the rounding of j / r, and is far below any real
# distance.
_TOLERANCE = 1e-6


_MOST_SLICES = 2**53  # beyond them indices are no longer exact


class Position(NamedTuple):
    """Place of one output slice: ``relative_depth`` (in [0, 1)) of the way from input slice ``interval`` to the next."""

    interval: int
    relative_depth: float


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
    return exact_factor(factor)


def exact_factor(factor: float) -> float:
    """The quotient of two voxel sizes as it is meant: they are often stored in single precision, so that 80.000001 / 10
    is 8, and 3.3333332 is 10 / 3.
    """
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
    relative_depth = place - interval
    return Position(interval, 0.0 if relative_depth < _TOLERANCE else relative_depth)


def positions(slices: int, factor: float) -> list[Position]:
    """The place of each output slice, in order."""
    return [position(j, factor) for j in range(output_size(slices, factor))]


def kept_indices(slices: int, factor: float) -> list[int]:
    """Output indices that coincide with an original slice."""
    return [j for j, place in enumerate(positions(slices, factor)) if place.relative_depth == 0.0]


class RecordedSlice(NamedTuple):
    """Where an input slice lies in the output: its ``position`` in output slices, which is no whole number where none
    lies at its place, the ``nearest`` of them, and whether that one ``coincides`` with it.
    """

    position: float
    nearest: int
    coincides: bool


def recorded_slices(slices: int, factor: float) -> list[RecordedSlice]:
    """Where each input slice lies in the output, in order."""
    places, last = [number * factor for number in range(slices)], output_size(slices, factor) - 1
    nearest = [min(round(place), last) for place in places]
    at = [position(index, factor) == Position(number, 0.0) for number, index in enumerate(nearest)]
    return [RecordedSlice(*found) for found in zip(places, nearest, at)]


def decimated_indices(size: int, factor: float) -> list[int]:
    """Indices kept when a fine axis of ``size`` voxels is sampled every ``factor`` voxels (nearest for a real
    factor)."""
    return [round(i * factor) for i in range(math.floor((size - 1) / factor + _TOLERANCE) + 1)]


def covered_size(size: int, factor: float) -> int:
    """Voxels of a fine axis of ``size`` voxels up to the last one that its decimation keeps: what a reconstruction of
    that can cover.
    """
    return output_size(len(decimated_indices(size, factor)), factor)


def kept_among(size: int, factor: float) -> list[int]:
    """Indices of a fine axis of ``size`` voxels that coincide with an original slice, see :func:`kept_indices`."""
    return kept_indices(len(decimated_indices(size, factor)), factor)


def window(interval: int, slices: int) -> list[int]:
    """Indices of the four slices around an interval; beyond the ends the edge slice is repeated."""
    first = interval - (INPUT_SLICES // 2 - 1)
    return [min(max(first + i, 0), slices - 1) for i in range(INPUT_SLICES)]


class Interval(NamedTuple):
    """The output slices from one input slice up to the next.

    Attributes:
        copied: index of the one that is a copy of the input slice, if any.
        first: index of the first new one.
        relative_depths: those of the new ones.
    """

    copied: int | None
    first: int
    relative_depths: list[float]

    def within(self, begin: int, end: int) -> Interval:
        """What of it lies from output slice ``begin`` to before ``end``."""
        copied = self.copied if self.copied is not None and begin <= self.copied < end else None
        left_out = max(0, begin - self.first)
        return Interval(copied, self.first + left_out, self.relative_depths[left_out : max(0, end - self.first)])


def interval(number: int, slices: int, factor: float, copy: bool) -> Interval:
    """The output slices of interval ``number``; without ``copy`` all of them are new."""
    begin, end = (_first_output(place, slices, factor) for place in (number, number + 1))
    relative_depths = [position(index, factor).relative_depth for index in range(begin, end)]
    copied = copy and bool(relative_depths) and relative_depths[0] == 0
    return Interval(begin if copied else None, begin + copied, relative_depths[copied:])


@cache
def most_in_interval(slices: int, factor: float, copy: bool) -> int:
    """The largest number of new slices that an interval has, see :func:`interval`."""
    begins = [_first_output(number, slices, factor) for number in range(slices + 1)]
    size = begins[-1]
    copies = [copy and begin < size and position(begin, factor).relative_depth == 0 for begin in begins[:-1]]
    return max(end - begin - copied for begin, end, copied in zip(begins, begins[1:], copies))


def padded_size(size: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``size``."""
    return -(-size // multiple) * multiple


class Span(NamedTuple):
    """One side of a tile: what is computed, and the part of it that is kept, its core.

    Attributes:
        begin, end: what is computed, all of it in the plane. It begins on the pooling grid, and seen from the other end
            of the plane it ends on the grid.
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
    """Cut a part of a plane side into the fewest tiles, and of those the smallest: 1000 voxels are three tiles of 424,
    not of 520.

    The cores of the tiles are the part, without gaps and without overlap. Every tile reaches ``halo`` voxels over its
    core, or to the edge of the plane, so it agrees with the whole up to what reaches over the halo. For that its cells
    of averages must be those of the plane: it begins on the pooling grid, and the last one ends with the plane, for
    what lay beyond would be averaged too. All are of one size, which leaves the same rest as the plane on division by
    the grid; then a plane that is flipped, whose grid begins at its other end, has its tiles on the grid as well.

    Args:
        part: first index of the part, and the one after its last; (0, ``size``) is the whole side.
        size: of the side.
        tile: largest side of a tile, rounded up to a multiple; up to ``multiple`` - 1 voxels more where it takes them
            to leave the same rest as ``size``.
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
    # Neighbors meet in the middle of what they share.
    borders = [part[0], *((begin + side + after) // 2 for begin, after in zip(begins, begins[1:])), part[1]]
    return [Span(begin, begin + side, *core) for begin, core in zip(begins, zip(borders, borders[1:]))]


class Block(NamedTuple):
    """The unit of work: a part of the output, and the part of the input that it is computed from.

    A voxel of the output does not depend on the block that it is computed in.

    Attributes:
        x, y: sides in the plane, with the halo.
        first, last: the intervals that are computed, from ``first`` to before ``last``. Interval i is input slice i and
            what lies between it and the next one.
        shape: sizes (x, y, slices) of the whole input.
        kept: of the output slices of these intervals, the first that is kept, and the one after the last; None for all.
    """

    x: Span
    y: Span
    first: int
    last: int
    shape: tuple[int, int, int]
    kept: tuple[int, int] | None = None

    @property
    def input(self) -> tuple[slice, slice, slice]:
        """Which voxels of the volume are read: the core, its halo, and the slices that the windows of the intervals
        reach.
        """
        reach = INPUT_SLICES // 2
        z = slice(max(0, self.first - reach + 1), min(self.shape[2], self.last + reach))
        return slice(self.x.begin, self.x.end), slice(self.y.begin, self.y.end), z

    def output(self, factor: float) -> tuple[slice, slice, slice]:
        """Which voxels of the output are computed."""
        begin, end = (_first_output(interval, self.shape[2], factor) for interval in (self.first, self.last))
        if self.kept is not None:
            begin, end = max(begin, self.kept[0]), min(end, self.kept[1])
        return slice(*self.x.core), slice(*self.y.core), slice(begin, end)

    def parts(self, tile: int, halo: int, multiple: int) -> list[Block]:
        """The block itself, or smaller ones that make up the same output, in tiles of at most ``tile``; see
        :func:`tiles`.

        Args:
            tile, halo, multiple: of the tiles.
        """
        return [
            self._replace(x=x, y=y)
            for x in tiles(self.x.core, self.shape[0], tile, halo, multiple)
            for y in tiles(self.y.core, self.shape[1], tile, halo, multiple)
        ]

    def numbers(self) -> list[int]:
        """The block as a flat list, which a batch can hold; :meth:`of` is the way back."""
        return [*self.x, *self.y, self.first, self.last, *self.shape, *(self.kept or ())]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Block:
        """The block of :meth:`numbers`."""
        values = [int(number) for number in numbers]
        kept = (values[13], values[14]) if len(values) > 13 else None
        shape = (values[10], values[11], values[12])
        return cls(Span(*values[:4]), Span(*values[4:8]), values[8], values[9], shape, kept)


def whole(shape: tuple[int, int, int]) -> Block:
    """The block that is the whole volume, of the input sizes (x, y, slices)."""
    x, y, slices = shape
    return Block(Span(0, x, 0, x), Span(0, y, 0, y), 0, slices, shape)


class Box(NamedTuple):
    """A part of the output, each side from its first index to the one after its last."""

    x: tuple[int, int]
    y: tuple[int, int]
    z: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z)."""
        x, y, z = (end - begin for begin, end in self)
        return x, y, z

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The sides as slices."""
        x, y, z = (slice(*side) for side in self)
        return x, y, z


def boxes(shape: tuple[int, int, int], sizes: tuple[int, int, int]) -> list[Box]:
    """Cut an output into boxes that begin at multiples of their sizes; those of the same slices follow each other.

    Args:
        shape: of the output (x, y, z).
        sizes: of a box (x, y, z); at the end of a side it is smaller.
    """
    sides = [
        [(begin, min(begin + size, whole)) for begin in range(0, whole, size)]
        for whole, size in zip(shape, sizes, strict=True)
    ]
    return [Box(x, y, z) for z in sides[2] for y in sides[1] for x in sides[0]]


def blocks(
    shape: tuple[int, int, int],
    tile: int,
    halo: int,
    multiple: int,
    intervals: int,
    factor: float,
    box: Box | None = None,
) -> list[Block]:
    """Cut a volume, or a box of its output, into blocks, those of the same slices one after the other.

    Args:
        shape: input sizes (x, y, slices).
        tile, halo, multiple: of the tiles in the plane, see :func:`tiles`.
        intervals: of a block, at most. The blocks along Z are of nearly one length.
        factor: how many times finer Z becomes.
        box: the part of the output; None for all of it.
    """
    first, last, around, kept = 0, shape[2], whole(shape), None
    if box is not None:
        first, last, kept = position(box.z[0], factor).interval, position(box.z[1] - 1, factor).interval + 1, box.z
        around = around._replace(x=Span(0, shape[0], *box.x), y=Span(0, shape[1], *box.y))
    number = -(-(last - first) // max(1, intervals))
    borders = [first + round(i * (last - first) / number) for i in range(number + 1)]
    parts = [part._replace(kept=kept) for part in around.parts(tile, halo, multiple)]
    return [part._replace(first=begin, last=end) for begin, end in zip(borders, borders[1:]) for part in parts]


def _first_output(interval: int, slices: int, factor: float) -> int:
    """Index of the first output slice in an interval or beyond it."""
    size = output_size(slices, factor)
    index = max(0, math.ceil(interval * factor) - 1)
    while index < size and position(index, factor).interval < interval:
        index += 1
    return min(index, size)


_SAMPLE_SIDE, _SAMPLE_LEVELS, _SAMPLE_PLACES = 64, 16, 32


def sample_boxes(shape: tuple[int, int, int]) -> list[Box]:
    """Boxes of 64 voxels a side, spread over a large volume: 32 at each of 16 levels of Z, always the same.

    They begin at multiples of 64, where the chunks of most volumes begin.

    Args:
        shape: of the volume (x, y, z).
    """
    random = np.random.default_rng(0)

    def side(begin: int, size: int) -> tuple[int, int]:
        return begin, min(begin + _SAMPLE_SIDE, size)

    cells = [max(1, size // _SAMPLE_SIDE) for size in shape]
    levels = sorted({round(place) for place in np.linspace(0, cells[2] - 1, _SAMPLE_LEVELS)})
    found: list[Box] = []
    for level in levels:
        places = random.integers(0, cells[:2], (_SAMPLE_PLACES, 2)) * _SAMPLE_SIDE
        along = side(level * _SAMPLE_SIDE, shape[2])
        corners = sorted({(int(column), int(row)) for column, row in places})
        found.extend(Box(side(x, shape[0]), side(y, shape[1]), along) for x, y in corners)
    return found


class Turn(NamedTuple):
    """How the axes of a file become X, Y, Z where another one than its Z is coarse: ``order`` has, for each axis of the
    volume, the number of that of the file.
    """

    order: tuple[int, int, int]

    @classmethod
    def of(cls, axis: str) -> Turn:
        """The turn that makes an axis of the file, "x", "y" or "z", the last one; the others keep their order.

        Raises:
            InputError: there is no such axis.
        """
        if axis not in _TURNS:
            raise InputError(f"--axis {axis}: there is no such axis; give z, y or x, the coarse one")
        return cls(_TURNS[axis])

    @property
    def back(self) -> tuple[int, int, int]:
        """The order that turns the volume back."""
        x, y, z = (self.order.index(axis) for axis in range(3))
        return x, y, z

    def to_volume(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """One value for each axis of the file -> the same for the volume."""
        x, y, z = (values[axis] for axis in self.order)
        return x, y, z

    def to_file(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """One value for each axis of the volume -> the same for the file."""
        x, y, z = (values[axis] for axis in self.back)
        return x, y, z

    def affine_of_volume(self, affine: np.ndarray) -> np.ndarray:
        """Affine (4, 4) of the file -> of the volume; every voxel keeps its place."""
        return np.asarray(affine)[:, [*self.order, 3]]

    def affine_of_file(self, affine: np.ndarray) -> np.ndarray:
        """Affine (4, 4) of the volume -> of the file."""
        return np.asarray(affine)[:, [*self.back, 3]]


_TURNS = {"z": (0, 1, 2), "y": (0, 2, 1), "x": (1, 2, 0)}


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
