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

"""The contract of a format's module, and of a volume that it has opened for reading."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.block_writer import BlockWriter


class Stack(NamedTuple):
    """
    An open volume, of which slices are read one at a time.

    Attributes:
        shape: number of voxels (x, y, z).
        dtype: of the voxels, in any byte order.
        affine: 4x4, None if the file has no voxel size.
        unit: of the affine, None if the file names none.
        read: returns slice z as an array (x, y).
        decoded: whether ``read`` decodes a whole slice, and may be called by one thread at a time. Otherwise it returns
            a memory map, or a view of an array, to any number of threads.
        doubt: why the voxel size of the file is not used, or may be wrong, without the name of the file; None if it is
            right.
        read_box: of a volume that is stored in chunks: returns the voxels (x, y, z) of a box, to any number of threads.
            None where a box is cut from slices.
        chunk: sizes (x, y, z) of these chunks.
        source: where the voxel size comes from, such as "resolution (nm) of volumes/raw"; None for the usual place of
            the format.
        parts: files, and folders of chunks, by which a change of the volume is noticed where it is more than its file,
            see :func:`scripts.volumes.paths.stamp`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray | None
    unit: str | None
    read: Callable[[int], np.ndarray]
    decoded: bool
    doubt: str | None = None
    read_box: Callable[[slice, slice, slice], np.ndarray] | None = None
    chunk: tuple[int, int, int] | None = None
    source: str | None = None
    parts: tuple[Path, ...] = ()


class ReadableFormat(Protocol):
    """A format that can be read: the functions of its module."""

    NAME: str
    """As messages name it, such as "TIFF"."""

    SUFFIXES: tuple[str, ...]
    """Suffixes of its files, in lower case, in the order in which messages list them. A format whose volumes are
    folders, recognized by their content, also has a function ``is_store(path: Path) -> bool``.
    """

    def open_stack(self, path: Path, selection: Selection = NO_SELECTION) -> AbstractContextManager[Stack]:
        """
        Open a volume without reading its voxels.

        Args:
            path: file or folder, which exists and may be read.
            selection: which volume of it to read.

        Raises:
            InputError: the selected volume does not exist, or is not a single volume of one channel.
            Exception: any other one is reported as damage of the file, with the first line of its message.
        """


class Format(ReadableFormat, Protocol):
    """A format that can be written as well."""

    # Those of the suffixes that are only read, such as those of detached headers, are in ``ONLY_READ: tuple[str, ...]``.
    # A format that lacks some of NumPy's types of integers of up to 32 bits, float32 and float64 has their names in
    # ``DTYPES: tuple[str, ...]``, those first that are to stand in for others; stored_dtype in scripts.volumes.writing
    # sees to it that it is asked for no other.

    def open_writer(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
    ) -> AbstractContextManager[BlockWriter]:
        """
        Write a file with its voxel size, block by block. It is complete when the context ends without an exception.

        Args:
            path: temporary file to write, in a folder that exists. Other temporary files have names that begin like
                this one, so that they are found after a killed run.
            shape: number of voxels (x, y, z).
            dtype: of the voxels, one of ``DTYPES``: integers of up to 32 bits, float32 or float64.
            affine: 4x4.
            unit: of the affine: nanometer, micrometer, millimeter or pixel.
        """
