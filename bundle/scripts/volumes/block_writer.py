# SPDX-License-Identifier: Apache-2.0
"""Writing of a volume block by block, in any order, into a file whose voxels lie one after the other."""

from __future__ import annotations

import os

import numpy as np

# Bytes of a row of the volume up to which rows are read, changed and written together: the disk's cache holds pages of this size, so
# nothing more moves than if parts of rows were written one by one, and that takes a call of the system each.
_SHORT_ROW = 4096


class BlockWriter:
    """
    Writes blocks of voxels at their places in a file that is open.

    It writes and does not map the file into memory: mapped pages count as memory of the process, and a full disk would end it
    without a word.

    Args:
        file: descriptor of a file that is open for writing.
        begin: byte where the voxels begin, x fastest, z slowest.
        shape: number of voxels (x, y, z) of the volume.
        dtype: of the voxels in the file. Blocks of another type are converted: for integers the values are rounded and clipped
            to its range.
    """

    def __init__(self, file: int, begin: int, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        self.file = file
        self.begin = begin
        self.shape = shape
        self.dtype = dtype

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """
        Write a block; one thread at a time may do so.

        Args:
            block: voxels (x, y, z).
            x, y, z: index of its first voxel in the volume.

        Raises:
            ValueError: the block has NaN or infinite values, which the type of the file does not hold.
            OSError: the disk is full, for instance.
        """
        pages = _converted(np.ascontiguousarray(block.transpose(2, 1, 0)), self.dtype)
        width, height, _ = self.shape
        pitch = width * self.dtype.itemsize
        rows = np.empty((pages.shape[1], width if pitch <= _SHORT_ROW else 0), self.dtype)
        for index, page in enumerate(pages, start=z):
            place = (index * height + y) * pitch
            if page.shape[1] == width:
                self._put(page, place)
            elif pitch <= _SHORT_ROW:
                os.preadv(self.file, [rows.data], self.begin + place)
                rows[:, x : x + page.shape[1]] = page
                self._put(rows, place)
            else:
                for number, row in enumerate(page):
                    self._put(row, place + number * pitch + x * self.dtype.itemsize)

    def _put(self, voxels: np.ndarray, place: int) -> None:
        data = voxels.data.cast("B")
        while data:  # a call may write less than all
            written = os.pwrite(self.file, data, self.begin + place)
            data, place = data[written:], place + written


def _converted(array: np.ndarray, target: np.dtype) -> np.ndarray:
    """Return the array in another dtype; integers are rounded and clipped."""
    if array.dtype == target:
        return array
    if target.kind not in "ui":
        return array.astype(target)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"the volume has NaN or infinite values, which {target} cannot hold")
        # float32 cannot hold the limits of 32-bit integers
        array = np.rint(array, dtype=np.float64 if target.itemsize > 2 else None)
    limits = np.iinfo(target)
    return np.clip(array, limits.min, limits.max).astype(target)
