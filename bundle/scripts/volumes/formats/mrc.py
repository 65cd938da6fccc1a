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

"""MRC files, also called REC and CCP4 maps."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.cast import cast
from scripts.volumes.formats.array_stack import array_stack
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.mapped_array import MappedArray
from scripts.volumes.formats.straight_grid import straight_grid
from scripts.volumes.formats.uncompressed import UncompressedWriter, open_uncompressed
from scripts.volumes.formats.voxel_attributes import VoxelSize
from scripts.volumes.units import MILLIMETERS

NAME = "MRC"
SUFFIXES: tuple[str, ...] = (".mrc", ".rec", ".map")
DTYPES = ("int8", "uint16", "int16", "float32")

_HEADER = 1024  # bytes
_ANGSTROM = 0.1  # nanometers
_FIRST_OF_MRC2014 = 20140
_IMOD_STAMP, _IMOD_SIGNED = 1146047817, 1
_STATISTICS = 76  # byte of the header where the smallest, the largest and the mean value stand
_UNREADABLE_MODES = {3: "complex 16-bit integers", 4: "complex numbers", 16: "colors", 101: "4-bit integers"}


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume, or one of a stack of volumes (space group 401) as a time point.

    The voxel size is that of the cell, in angstrom, over the number of intervals along its axes (``mx``, ``my``,
    ``mz``); the origin is that of the header, or the index of the first voxel. Voxels of mode 0 are signed where the
    flags of IMOD or the smallest value say so, or the file says that it is of MRC 2014, which has no unsigned ones.

    Args:
        path: file to read.
        selection: which volume to read.

    Yields:
        The stack; boxes of it are read by memory maps.

    Raises:
        InputError: the file is no MRC file, or holds no volume.
        OSError: it is truncated.
    """
    selection.refuse_dataset(path, "an MRC file")
    header = _header(path)
    dtype = _dtype(header, path)
    columns, rows, sections = (int(header[name]) for name in ("nx", "ny", "nz"))
    extended = int(header["nsymbt"])
    if min(columns, rows, sections) < 1 or extended < 0:
        raise InputError(
            f"{path}: its header says that it has {columns} x {rows} x {sections} voxels after {extended} bytes; "
            "it is damaged, or no MRC file"
        )
    needed, size = _HEADER + extended + columns * rows * sections * dtype.itemsize, path.stat().st_size
    if size < needed:
        raise OSError(f"ends at byte {size}, but its voxels go on to {needed}")
    if bytes(header["map"])[:3] != b"MAP" and size != needed:  # files from before 2000 have no such mark
        raise InputError(f"{path}: is no MRC file in spite of its name: it has no mark MAP")
    crossed = [int(header[name]) for name in ("maps", "mapr", "mapc")]
    if crossed == [0, 0, 0]:
        crossed = [3, 2, 1]
    if sorted(crossed) != [1, 2, 3]:
        raise InputError(
            f"{path}: its mapc, mapr and maps are {crossed[2]}, {crossed[1]} and {crossed[0]}, not 1, 2 and 3 once "
            "each; it is damaged"
        )
    names = "".join("XYZ"[number - 1] for number in crossed)
    shape: tuple[int, ...] = (sections, rows, columns)
    if 401 <= int(header["ispg"]) <= 630:
        depth = int(header["mz"])
        if depth < 1 or sections % depth:
            raise InputError(
                f"{path}: is a stack of volumes of {depth} sections each (mz), but has {sections}; it is damaged"
            )
        names, shape = f"T{names}", (sections // depth, depth, rows, columns)
    array = MappedArray(path, dtype, _HEADER + extended, shape)
    yield array_stack(array, names, selection, path, _voxel_size(header, sections, names[-3:]))


def _header(path: Path) -> Any:
    """The header in the byte order of the file."""
    # not before such a file is opened; its reader would make room for as long an extended header as a damaged file says
    from mrcfile.dtypes import HEADER_DTYPE
    from mrcfile.utils import byte_order_from_machine_stamp, dtype_from_mode

    with open(path, "rb") as file:
        content = file.read(_HEADER)
    if content[:3] in (b"\x1f\x8b\x08", b"BZh"):
        raise InputError(f"{path}: is compressed; unpack it with gunzip or bunzip2")
    if len(content) < _HEADER:
        raise OSError(f"ends at byte {len(content)}, within its header of {_HEADER} bytes")
    header = np.frombuffer(content, HEADER_DTYPE.newbyteorder("<"))[0]
    orders = ["<", ">"]
    with suppress(ValueError):  # files from before 2000 have no such stamp, and some have that of another machine
        orders.insert(0, byte_order_from_machine_stamp(header["machst"]))
    for order in orders:
        header = np.frombuffer(content, HEADER_DTYPE.newbyteorder(order))[0]
        with suppress(ValueError):
            dtype_from_mode(header["mode"])
            return header
    return np.frombuffer(content, HEADER_DTYPE.newbyteorder(orders[0]))[0]


def _dtype(header: Any, path: Path) -> np.dtype:
    """The type of the voxels, with the byte order."""
    from mrcfile.utils import dtype_from_mode

    mode = int(header["mode"])
    if mode in _UNREADABLE_MODES:
        raise InputError(
            f"{path}: has {_UNREADABLE_MODES[mode]} (mode {mode}); save it as grayscale integers or floats"
        )
    try:
        dtype = np.dtype(dtype_from_mode(mode)).newbyteorder(_byte_order(header))
    except ValueError:
        raise InputError(
            f"{path}: its mode {mode} is none that MRC files have; it is damaged, or no MRC file in spite of its name"
        ) from None
    return np.dtype(np.uint8) if mode == 0 and not _signed(header) else dtype


def _byte_order(header: Any) -> str:
    """The byte order of a header, < or >."""
    order: str = header.dtype["nx"].byteorder  # "=" for that of this machine
    return order if order in "<>" else "<" if np.little_endian else ">"


def _signed(header: Any) -> bool:
    """Whether voxels of 8 bits are signed."""
    extra = bytes(header["extra2"])  # from byte 112 on; IMOD's stamp and flags are at 152 and 156
    stamp, flags = struct.unpack_from(f"{_byte_order(header)}2i", extra, 152 - 112)
    low, high = float(header["dmin"]), float(header["dmax"])
    if stamp == _IMOD_STAMP:
        return bool(flags & _IMOD_SIGNED)
    if low <= high:  # otherwise they are not known
        if high > 127:
            return False
        if low < 0:
            return True
    return int(header["nversion"]) >= _FIRST_OF_MRC2014


def _voxel_size(header: Any, sections: int, names: str) -> VoxelSize:
    """The voxel size in nanometers."""
    lengths = [float(header["cella"][name]) for name in "xyz"]
    counts = [int(header[name]) for name in ("mx", "my", "mz")]
    if not any(lengths):
        return VoxelSize(doubt="its header has no cell lengths, so that its voxel size is not known")
    if min(counts) < 1:
        told = ", ".join(str(count) for count in counts)
        return VoxelSize(doubt=f"its mx, my and mz are {told}, so that its voxel size is not known")
    angles = [float(header["cellb"][name]) for name in ("alpha", "beta", "gamma")]
    doubt = None
    if any(angle != 0 and not math.isclose(angle, 90, abs_tol=0.01) for angle in angles):
        doubt = f"its cell has the angles {', '.join(f'{angle:g}' for angle in angles)}, and is taken for a right-angled one"
    elif int(header["ispg"]) == 0 and counts[2] == 1 < sections:
        doubt = (
            "is a stack of images (space group 0, mz 1), so that the distance of its slices may not be its voxel size"
        )
    sizes = {axis: length / count * _ANGSTROM for axis, length, count in zip("XYZ", lengths, counts)}
    origin = _origin(header, names, sizes)
    return VoxelSize(sizes, "nanometer", origin, doubt, "cell lengths over mx, my, mz (angstrom)")


def _origin(header: Any, names: str, voxel_size: dict[str, float]) -> dict[str, float] | None:
    """The place of the first voxel in nanometers."""
    origin = {axis: float(header["origin"][axis.lower()]) * _ANGSTROM for axis in "XYZ"}
    if any(origin.values()):
        return origin if all(math.isfinite(place) for place in origin.values()) else None
    first = dict(zip(reversed(names), (int(header[name]) for name in ("nxstart", "nystart", "nzstart"))))
    return {axis: first[axis] * voxel_size[axis] for axis in "XYZ"}


class _Writer:
    """Writes blocks, and keeps the statistics of the header."""

    def __init__(self, writer: UncompressedWriter) -> None:
        self._writer = writer
        self._written, self._low, self._high, self._sum = 0, math.inf, -math.inf, 0.0

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Write a block, see :meth:`scripts.volumes.block_writer.BlockWriter.write`."""
        block = cast(block, self._writer.dtype)
        self._writer.write(block, x, y, z)
        if block.size:
            self._written += block.size
            self._low, self._high = min(self._low, float(block.min())), max(self._high, float(block.max()))
            self._sum += float(block.sum(dtype=np.float64))

    def statistics(self) -> tuple[float, float, float]:
        """The smallest, the largest and the mean value; voxels that were not written are 0."""
        size = math.prod(self._writer.shape)
        if self._written < size:
            return min(self._low, 0.0), max(self._high, 0.0), self._sum / size
        return self._low, self._high, self._sum / size


@contextmanager
def open_writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
) -> Iterator[BlockWriter]:
    """Write a volume block by block, see :meth:`scripts.volumes.formats.base.Format.open_writer` and :func:`create`."""
    create(path, shape, dtype, affine, unit)
    with open_uncompressed(path, _HEADER, shape, dtype) as file:
        writer = _Writer(file)
        yield writer
        os.pwrite(file.file, struct.pack("=3f", *writer.statistics()), _STATISTICS)


def create(path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str) -> None:
    """
    Write a volume of zeros with its voxel size and, if it is not turned, its origin.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels, one of :data:`DTYPES`.
        affine: 4x4.
        unit: of the affine; for pixel the cell has no lengths, since those of MRC are in angstrom.
    """
    import mrcfile  # not before such a file is written

    sizes, origin = straight_grid(affine)
    angstroms = MILLIMETERS.get(unit, 0.0) / MILLIMETERS["nanometer"] / _ANGSTROM
    with mrcfile.new_mmap(path, shape[::-1], mrcfile.utils.mode_from_dtype(dtype), overwrite=True) as file:
        file.set_volume()
        file.voxel_size = tuple(size * angstroms for size in sizes)
        file.header["origin"] = tuple(place * angstroms for place in origin)
