# SPDX-License-Identifier: Apache-2.0
"""Writing of a volume block by block, in any order, into a file whose voxels lie one after the other."""

from __future__ import annotations

import os

import numpy as np


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
        Write a block; more than one thread may do so at a time.

        Args:
            block: voxels (x, y, z).
            x, y, z: index of its first voxel in the volume.

        Raises:
            ValueError: the block has NaN or infinite values, which the type of the file does not hold.
            OSError: the disk is full, for instance.
        """
        pages = _converted(np.ascontiguousarray(block.transpose(2, 1, 0)), self.dtype)
        width, height, _ = self.shape
        if pages.shape[2] == width:  # rows that follow each other in the file
            pages = pages.reshape(len(pages), 1, -1)
        for index, page in enumerate(pages, start=z):
            for number, row in enumerate(page, start=y):
                self._put(row, ((index * height + number) * width + x) * self.dtype.itemsize)

    def _put(self, row: np.ndarray, place: int) -> None:
        data = row.data.cast("B")
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
