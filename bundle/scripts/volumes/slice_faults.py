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

"""Black, saturated and repeated slices, which a person would notice at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Where detectors and programs clip: the limits of types, and of fewer bits in them.
_LIMITS = {
    "u": {2**bits - 1 for bits in (8, 10, 12, 14, 16, 32)},
    "i": {2**bits - 1 for bits in (7, 8, 10, 12, 14, 15, 16, 31)},
    "f": {1.0, 255.0, 4095.0, 65535.0},
}
_SATURATED = 0.1  # share of the pixels of a slice within a border that is clipped as a whole
_WORDS = 1021
_WORDS_BYTES = 8 * _WORDS
_LARGE, _EVERY = 512, 8  # of slices with more rows, every eighth row tells whether counting all pixels is worthwhile
_SHOWN = 8  # runs of slices that a warning names


class SliceLook(NamedTuple):
    """What a slice shows by itself: its one value, or its fingerprint and whether much of it is clipped, at its largest
    value.
    """

    constant: bool
    fingerprint: int
    clipped: bool
    high: float


def look_at(stored: np.ndarray, low: float, high: float) -> SliceLook:
    """
    Look at a slice; that takes little time beside reading it.

    Args:
        stored: pixels (x, y) as they are in the file.
        low: the smallest of them, finite.
        high: the largest of them, finite.
    """
    if low == high:
        return SliceLook(True, 0, False, high)
    rows = stored.transpose()  # one after the other, as most files have them
    clipped = False
    if high in _LIMITS[stored.dtype.kind]:
        limit = rows.dtype.type(high)
        some = rows[::_EVERY] if len(rows) > _LARGE else rows
        clipped = bool(
            np.count_nonzero(some == limit) > _SATURATED / 2 * some.size and _share_inside(rows == limit) > _SATURATED
        )
    return SliceLook(False, _fingerprint(np.ascontiguousarray(rows)), clipped, high)


class SliceFaults:
    """Finds faults in the slices of a volume, which are added one after the other."""

    def __init__(self) -> None:
        self._constant: dict[float, list[int]] = {}
        self._clipped: dict[float, list[int]] = {}
        self._repeated: list[int] = []
        self._same_as: dict[int, int] = {}
        self._first_with: dict[int, int] = {}
        self._limits: set[float] = set()  # of the type
        self._before = 0  # fingerprint of the slice before

    def add(self, index: int, kind: str, look: SliceLook) -> None:
        """
        Add the next slice.

        Args:
            index: counted from 0.
            kind: of its dtype, as NumPy's ``dtype.kind``.
            look: from :func:`look_at`.
        """
        self._limits = _LIMITS[kind]
        if look.constant:
            self._constant.setdefault(look.high, []).append(index)
            self._before = 0
            return
        first = self._first_with.setdefault(look.fingerprint, index)
        if look.fingerprint == self._before:
            self._repeated.append(index)
        elif first != index:
            self._same_as[index] = first
        self._before = look.fingerprint
        if look.clipped:
            self._clipped.setdefault(look.high, []).append(index)

    def sentences(self, largest: float) -> list[str]:
        """
        Return one sentence for each kind of fault that was found.

        Args:
            largest: value of the volume. A slice whose values end at a limit that other slices exceed is not clipped.
        """
        told = []
        saturated = self._clipped.get(largest, [])
        for value, indices in sorted(self._constant.items()):
            if value == largest and value in self._limits:
                saturated = sorted(saturated + indices)
                continue
            kind = "black" if value == 0 else "blank"
            told.append(f"{_numbers(indices, 'is', 'are')} {kind}: every voxel is {value:g}")
        if saturated:
            told.append(
                f"{_numbers(saturated, 'is', 'are')} saturated: over {_SATURATED:.0%} of the voxels are {largest:g}"
            )
        if self._repeated:
            told.append(f"{_numbers(self._repeated, 'repeats', 'repeat')} the one before")
        if self._same_as:
            pairs = [f"{index} repeats {first}" for index, first in self._same_as.items()]
            more = f", ... ({len(pairs)} in all)" if len(pairs) > _SHOWN else ""
            told.append(f"some slices (counted from 0) are there again: {', '.join(pairs[:_SHOWN])}{more}")
        return told


def _fingerprint(rows: np.ndarray) -> int:
    """Return a hash of a slice: of the sums over every 1021st word, a prime, so that shifts and flips change it."""
    stored = rows.reshape(-1).view(np.uint8)
    used = stored.size // _WORDS_BYTES * _WORDS_BYTES
    words = stored[:used].view(np.uint64).reshape(-1, _WORDS)
    return hash((words.sum(0).tobytes(), stored[used:].tobytes()))


def _share_inside(clipped: np.ndarray) -> float:
    """Return the share of clipped pixels, without a border of rows and columns that are clipped as a whole."""
    rows, columns = (np.flatnonzero(~clipped.all(axis)) for axis in (1, 0))
    if not rows.size or not columns.size:
        return 1.0
    return float(clipped[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean())


def _numbers(indices: Sequence[int], one: str, several: str) -> str:
    """Return the numbers of slices, consecutive ones as a range, with the verb in singular or plural."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:_SHOWN])
    more = f", ... ({len(indices)} in all)" if len(runs) > _SHOWN else ""
    noun, verb = ("slices", several) if len(indices) > 1 else ("slice", one)
    return f"{noun} {shown}{more} (counted from 0) {verb}"
