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

"""Caches of decoded slices."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np


class SliceCache:
    """
    Decodes slices and caches them; the least recently used ones make room for others. It is thread-safe: slices are
    decoded one at a time, and two threads that ask for the same slice share it.

    Args:
        decode: returns slice z as an array (x, y).
        max_bytes: of all slices in the cache. A slice that is larger by itself is not cached.
    """

    def __init__(self, decode: Callable[[int], np.ndarray], max_bytes: int) -> None:
        self._decode = decode
        self._free = max_bytes
        self._slices: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, index: int) -> np.ndarray:
        """Return slice ``index`` (x, y) without caching it, for a pass over the whole volume."""
        with self._lock:
            return self._slices[index] if index in self._slices else self._decode(index)

    def keep(self, index: int) -> np.ndarray:
        """Return slice ``index`` (x, y), and cache it."""
        with self._lock:
            if index in self._slices:
                self._slices.move_to_end(index)
                return self._slices[index]
            decoded = self._decode(index)
            self._slices[index] = decoded
            self._free -= decoded.nbytes
            while self._free < 0:
                self._free += self._slices.popitem(last=False)[1].nbytes
            return decoded

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            while self._slices:
                self._free += self._slices.popitem()[1].nbytes


class SlabCache:
    """
    Reads a volume that is stored in chunks slice by slice, a slab as thick as a chunk at a time, or thinner where that
    would be large; the last one is kept. It is thread-safe.

    Args:
        read_box: returns the voxels (x, y, z) of a box.
        shape: of the volume (x, y, z).
        thickness: of a chunk.
    """

    _MOST_VOXELS = 2**28

    def __init__(
        self, read_box: Callable[[slice, slice, slice], np.ndarray], shape: tuple[int, int, int], thickness: int
    ) -> None:
        self._read_box = read_box
        self._slices = shape[2]
        self._thickness = max(1, min(thickness, self._MOST_VOXELS // max(1, shape[0] * shape[1])))
        self._slab: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()

    def read(self, index: int) -> np.ndarray:
        """Return slice ``index`` (x, y)."""
        with self._lock:
            first = index // self._thickness * self._thickness
            if self._slab is None or self._slab[0] != first:
                self._slab = None  # before the next one is read, so that there is one at a time
                along = slice(first, min(first + self._thickness, self._slices))
                self._slab = first, self._read_box(slice(None), slice(None), along)
            return self._slab[1][:, :, index - first]
