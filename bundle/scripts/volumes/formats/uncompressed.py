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

"""Blocks at their places in a file whose voxels follow each other without a gap, x fastest, z slowest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.cast import cast
from scripts.volumes.write_all import write_all

# Rows of the volume of up to this many bytes are read, changed and written as a whole, many at once. The operating
# system caches files in pages of this size, so writing parts of rows one by one moves as much and takes a system call
# for each.
_SHORT_ROW = 4096


class UncompressedWriter:
    """
    Writes blocks of voxels into an open file.

    It does not map the file into memory: mapped pages count as memory of the process, and a full disk kills a process
        that writes
    to one.

    Args:
        file: descriptor of a file that is open for reading and writing.
        begin: byte where the voxels begin.
        shape: number of voxels (x, y, z) of the volume.
        dtype: of the voxels in the file; blocks of another type are converted, see :func:`scripts.volumes.cast.cast`.
    """

    def __init__(self, file: int, begin: int, shape: tuple[int, int, int], dtype: np.dtype) -> None:
        self.file = file
        self.begin = begin
        self.shape = shape
        self.dtype = dtype

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Write a block, see :meth:`scripts.volumes.block_writer.BlockWriter.write`."""
        pages = cast(np.ascontiguousarray(block.transpose(2, 1, 0)), self.dtype)
        width, height, _ = self.shape
        row_size = width * self.dtype.itemsize
        rows = np.empty((pages.shape[1], width if row_size <= _SHORT_ROW else 0), self.dtype)
        for index, page in enumerate(pages, start=z):
            place = self.begin + (index * height + y) * row_size
            if page.shape[1] == width:
                write_all(self.file, page.data, place)
            elif row_size <= _SHORT_ROW:
                os.preadv(self.file, [rows.data], place)
                rows[:, x : x + page.shape[1]] = page
                write_all(self.file, rows.data, place)
            else:
                for number, row in enumerate(page):
                    write_all(self.file, row.data, place + number * row_size + x * self.dtype.itemsize)


def writer_of(
    create: Callable[[Path, tuple[int, int, int], np.dtype, np.ndarray, str], int],
) -> Callable[..., AbstractContextManager[BlockWriter]]:
    """
    Return the function :meth:`scripts.volumes.formats.base.Format.open_writer` of a format without compression.

    Args:
        create: takes the same arguments, writes a file of zeros, and returns the byte where its voxels begin.
    """

    @contextmanager
    def open_writer(
        path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
    ) -> Iterator[BlockWriter]:
        with open_uncompressed(path, create(path, shape, dtype, affine, unit), shape, dtype) as writer:
            yield writer

    return open_writer


@contextmanager
def open_uncompressed(
    path: Path, begin: int, shape: tuple[int, int, int], dtype: np.dtype
) -> Iterator[UncompressedWriter]:
    """
    Open a file that has its header and room for its voxels.

    Args:
        path: the file.
        begin, shape, dtype: as in :class:`UncompressedWriter`.

    Raises:
        OSError: it cannot be opened.
    """
    with open(path, "r+b", buffering=0) as file:
        yield UncompressedWriter(file.fileno(), begin, shape, dtype)
