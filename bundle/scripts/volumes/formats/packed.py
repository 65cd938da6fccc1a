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

"""Voxels that are compressed as a whole, or written as text, in a part of a file."""

from __future__ import annotations

import bz2
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from scripts.volumes.memory import check_memory

_PART = 2**22  # bytes that are read at once


def unpack(
    path: Path, begin: int, skip: int, dtype: np.dtype, shape: tuple[int, ...], bzip2: bool = False
) -> np.ndarray:
    """
    Read voxels that are compressed with gzip, zlib or bzip2 into memory.

    Args:
        path: the file.
        begin: its byte where the compressed voxels begin.
        skip: number of unpacked bytes to skip.
        dtype: of the voxels, with their byte order.
        shape: of the array, the fastest axis first.
        bzip2: whether it is bzip2.

    Raises:
        InputError: there is no room for them.
        OSError: they are truncated or damaged.
    """
    needed = skip + math.prod(shape) * dtype.itemsize
    check_memory(needed, f"{path}: is compressed as a whole and needs", "free some, or save it uncompressed")
    voxels, place = bytearray(needed), 0
    with open(path, "rb") as file:
        file.seek(begin)
        for part in _by_bzip2(file) if bzip2 else _by_zlib(file):
            kept = part[: max(0, needed - place)]
            voxels[place : place + len(kept)] = kept
            place += len(part)
    if place < needed:
        raise OSError(f"its voxels end after {place} bytes of {needed}")
    return np.frombuffer(voxels, dtype, offset=skip).reshape(shape, order="F")


def _by_zlib(file: IO[bytes]) -> Iterator[bytes]:
    """Unpack a file to the end of its compressed part, where the checksum is compared."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip as well
    while not unpacker.eof:
        part = unpacker.unconsumed_tail or file.read(_PART)
        if not part:
            raise OSError("its compressed voxels are truncated")
        try:
            yield unpacker.decompress(part, _PART)
        except zlib.error as error:
            raise OSError(f"its compressed voxels are damaged: {error}") from error


def _by_bzip2(file: IO[bytes]) -> Iterator[bytes]:
    with bz2.BZ2File(file) as unpacker:
        while part := unpacker.read(_PART):
            yield part


def read_text(path: Path, begin: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """
    Read voxels that are written as numbers with blanks between them.

    Args:
        path, begin, dtype, shape: as in :func:`unpack`.

    Raises:
        InputError: there is no room for them.
        OSError: they are truncated or not numbers.
    """
    count = math.prod(shape)
    check_memory(count * dtype.itemsize, f"{path}: is written as text and needs", "free some, or save it as binary")
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is no number, after which there are too few
        file.seek(begin)
        voxels = np.fromfile(file, dtype.newbyteorder("="), count, sep=" ")
    if voxels.size < count:
        raise OSError(f"its text ends, or is no number, after {voxels.size} voxels of {count}")
    return voxels.reshape(shape, order="F")
