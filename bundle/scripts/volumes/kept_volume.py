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

"""A volume that is trained on from main memory or from disk, where the device has no room for it."""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from scripts.volumes.background import to_device
from scripts.volumes.paths import cannot_be_written
from scripts.volumes.write_all import take_room, write_all

BRICK = (32, 32, 8)
"""Voxels (x, y, z) of a brick, which are stored together: two pages of memory with 8 bits."""

_THREADS = 4  # that read patches, most of the time waiting for memory or for the disk
_EXACT = {"float64": "float32", "int64": "int32", "uint64": "uint32"}  # what float32 holds of them fits, for it is read


class PatchSource(Protocol):
    """A volume of one channel of which patches are read, in place of a tensor (1, X, Y, Z).

    Attributes:
        device: where patches go.
    """

    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z)."""

    def part(self, parts: Sequence[slice]) -> Self:
        """A part (x, y, z) of the volume."""

    def cut(self, corner: np.ndarray, down: np.ndarray, across: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """Read patches, see :meth:`KeptVolume.cut`."""


class KeptVolume:
    """
    The voxels of a volume of one channel in the type of its file, of which patches are read.

    They lie in bricks of 32 x 32 x 8 voxels, so that a patch of any direction touches few pages: in the rows of a file
    each voxel of a YZ plane has a page of its own. On disk they are in a scratch file without a name, whose space is
    freed when the process ends, in whatever way.

    Args:
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        device: where what is read goes.
        folder: of the scratch file, made if missing; None for main memory.

    Attributes:
        scale: function from stored values, as float32, to the values that are returned.

    Raises:
        InputError: the disk has no room, or the folder cannot be written to.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: str | np.dtype,
        device: str | torch.device = "cpu",
        folder: Path | None = None,
    ) -> None:
        self.dtype, self.device, self.folder = kept_dtype(dtype), torch.device(device), folder
        self.scale: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
        self._bricks = [math.ceil(size / side) for size, side in zip(shape, BRICK)]
        voxels = math.prod(BRICK)
        steps = self._bricks[1] * voxels, voxels, math.prod(self._bricks[:2]) * voxels  # from brick to brick
        inside = BRICK[1] * BRICK[2], BRICK[2], 1
        # the place of voxel (x, y, z) is the sum of an entry of each
        self._tables = [
            np.arange(size) // side * step + np.arange(size) % side * within
            for size, side, step, within in zip(shape, BRICK, steps, inside)
        ]
        size = math.prod(self._bricks) * voxels
        self._store = _Memory(size, self.dtype) if folder is None else _ScratchFile(folder, size, self.dtype)
        self._threads = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "patches")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z)."""
        x, y, z = map(len, self._tables)
        return x, y, z

    def keep(self, planes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """
        Store all slices of the volume, and pass them on.

        Args:
            planes: (x, y), in order, with values that the type holds.

        Yields:
            The same slices.

        Raises:
            InputError: the disk is full, for instance.
        """
        width, height, depth = self._bricks[0] * BRICK[0], self._bricks[1] * BRICK[1], BRICK[2]
        slab = np.zeros((width, height, depth), self.dtype)
        x, y, slices = self.shape
        for index, plane in enumerate(planes):
            with np.errstate(invalid="ignore"):  # of values that the reader refuses
                slab[:x, :y, index % depth] = plane
            if index % depth == depth - 1 or index == slices - 1:
                self._write(slab, index // depth)
            yield plane

    def like(self, dtype: str) -> KeptVolume:
        """An empty volume of the same shape in the same place, whose values are not scaled."""
        return KeptVolume(self.shape, dtype, self.device, self.folder)

    def part(self, parts: Sequence[slice]) -> KeptVolume:
        """A part (x, y, z) of the volume, of the same voxels."""
        view = copy.copy(self)
        view._tables = [table[part] for table, part in zip(self._tables, parts)]
        return view

    def planes(self) -> Iterator[torch.Tensor]:
        """All slices (X, Y) in their order, scaled, in main memory."""
        x, y, z = self._tables
        for place in z:
            voxels, plane = self._store.read(), np.empty((len(x), len(y)), np.float32)
            for begin in range(0, len(x), BRICK[0]):  # so that the places need little memory
                rows = x[begin : begin + BRICK[0], None]
                plane[begin : begin + BRICK[0]] = voxels.take(rows + y + place)
            yield self.scale(torch.from_numpy(plane))

    def cut(self, corner: np.ndarray, down: np.ndarray, across: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """
        Read patches of several planes each, :class:`scripts.transforms.patches.Patch`.

        Args:
            corner: first voxel (x, y, z) of each plane, (B, N, 3).
            down: from a voxel to the one in the next row, (B, 3), along another axis than that of the planes.
            across: from a voxel to the one in the next column, (B, 3), along the third axis.
            size: (H, W) of a patch.

        Returns:
            Scaled patches (B, N, H, W), float32, on the device.
        """
        # along each of its axes a voxel's place moves by steps of its own: few tables in place of a place for each voxel
        planes = self._places(corner)
        rows, columns = (
            self._places(corner[:, :1] + step[:, None] * np.arange(length)[:, None]) - planes[:, :1]
            for step, length in zip((down, across), size)
        )
        voxels, patches = self._store.read(), np.empty((*planes.shape, *size), self.dtype)

        def read(some: slice) -> None:
            places = planes[some, :, None, None] + (rows[some, None, :, None] + columns[some, None, None, :])
            patches[some] = voxels.take(places)

        step = -(-len(planes) // _THREADS)
        list(self._threads.map(read, [slice(begin, begin + step) for begin in range(0, len(planes), step)]))
        return self.scale(to_device(torch.from_numpy(patches), self.device).float())

    def _places(self, voxels: np.ndarray) -> np.ndarray:
        """Where voxels (..., 3) are in the store."""
        x, y, z = (table[index] for table, index in zip(self._tables, np.moveaxis(voxels, -1, 0)))
        return x + y + z

    def _write(self, slab: np.ndarray, number: int) -> None:
        """Write the bricks of one range of Z."""
        (x, y, _), (width, height, depth) = self._bricks, BRICK
        bricks = slab.reshape(x, width, y, height, depth).transpose(0, 2, 1, 3, 4)
        self._store.write(np.ascontiguousarray(bricks), number * bricks.size)


class _Memory:
    """Voxels in main memory."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        self._voxels = np.empty(size, dtype)

    def read(self) -> np.ndarray:
        """All of them."""
        return self._voxels

    def write(self, voxels: np.ndarray, begin: int) -> None:
        """Write voxels from a number of them on."""
        self._voxels[begin : begin + voxels.size] = voxels.ravel()


class _ScratchFile:
    """Voxels in a file without a name."""

    def __init__(self, folder: Path, size: int, dtype: np.dtype) -> None:
        self._folder, self._size, self._dtype = folder, size, dtype
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
            take_room(self._file.fileno(), size * dtype.itemsize)
        except OSError as error:
            raise cannot_be_written(folder, error) from error

    def read(self) -> np.ndarray:
        """All of them, mapped again each time, since mapped pages count as memory of the process."""
        return np.memmap(self._file, self._dtype, "r", shape=(self._size,))

    def write(self, voxels: np.ndarray, begin: int) -> None:
        """Write voxels from a number of them on; not through a map, where a full disk would kill the process."""
        try:
            write_all(self._file.fileno(), voxels.data, begin * self._dtype.itemsize)
        except OSError as error:
            raise cannot_be_written(self._folder, error) from error


def kept_dtype(dtype: str | np.dtype) -> np.dtype:
    """The type of at most 32 bits in which the voxels of a file are kept."""
    name = np.dtype(dtype).name
    return np.dtype(_EXACT.get(name, name))


def kept_bytes(shape: Sequence[int], dtype: str | np.dtype) -> int:
    """Bytes that a volume (x, y, z) takes in bricks."""
    return math.prod(-(-size // side) * side for size, side in zip(shape, BRICK)) * kept_dtype(dtype).itemsize


def _as_they_are(values: torch.Tensor) -> torch.Tensor:
    return values
