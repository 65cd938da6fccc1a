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

"""MetaImage files, with an attached (.mha) or a detached (.mhd) header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.formats.array_stack import Array, array_stack
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.itk_reading import itk_affine, itk_voxels
from scripts.volumes.formats.mapped_array import MappedArray
from scripts.volumes.formats.packed import read_text, unpack
from scripts.volumes.formats.uncompressed import writer_of
from scripts.volumes.units import length

NAME = "MetaImage"
SUFFIXES: tuple[str, ...] = (".mha", ".mhd")
ONLY_READ: tuple[str, ...] = (".mhd",)

_TYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
# MetaImage has no nanometer
_UNITS = {"millimeter": ("mm", 1.0), "micrometer": ("um", 1.0), "nanometer": ("um", 1e-3), "pixel": (None, 1.0)}
_MOST_LINES = 10_000  # of a header


class _Header(NamedTuple):
    """The fields of a header, and the byte of the file after its end."""

    fields: dict[str, str]
    end: int

    def true(self, *names: str) -> bool:
        """Whether one of some fields says True."""
        return any(self.fields.get(name, "").lower() in ("true", "1") for name in names)


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Its voxel size is the ``ElementSpacing`` in the ``DistanceUnits``, which few files have. Where the file has a
    ``TransformMatrix``, the affine is in RAS coordinates, as that of a NIfTI file.

    Args:
        path: file to read.
        selection: which volume to read; its axes are in the order of ``DimSize``, the fastest first, after that of the
            channels, if there are several.

    Yields:
        The stack. Uncompressed voxels are memory maps; others are read into memory.

    Raises:
        InputError: the file holds no single volume of one channel.
        OSError: it is truncated or damaged.
    """
    selection.refuse_dataset(path, "a MetaImage file")
    header = _header(path)
    shape = _shape(header.fields, path)
    names = "XYZTIIIIII"[: len(shape)]
    channels = _number(header.fields, "ElementNumberOfChannels", 1, path)
    if channels > 1:
        shape, names = (channels, *shape), f"C{names}"
    stack = array_stack(_voxels(header, shape, path), names, selection, path)
    affine, unit, doubt, source = _grid(header.fields, selection.axes or names, path)
    named = header.fields["ElementDataFile"]
    # where files are listed, any in that folder may be one
    parts = () if named.upper() == "LOCAL" else (path.parent if _is_list(named) else path.parent / named,)
    yield stack._replace(affine=affine, unit=unit, doubt=doubt, source=source, parts=parts)


def _header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        for _ in range(_MOST_LINES):
            line = file.readline(2**16)
            name, equals, value = line.decode("utf-8", errors="replace").partition("=")
            if not line or not equals:
                break
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":  # the last one
                return _Header(fields, file.tell())
    if "NDims" not in fields:
        raise InputError(f"{path}: is no MetaImage file in spite of its name: its header has no NDims")
    raise InputError(f"{path}: its header has no ElementDataFile, with which it ends; it is damaged")


def _number(fields: dict[str, str], name: str, default: int, path: Path) -> int:
    try:
        return int(fields.get(name, default))
    except ValueError:
        raise InputError(f"{path}: its {name} is {fields[name]}, no whole number; it is damaged") from None


def _numbers(fields: dict[str, str], name: str) -> list[float] | None:
    """The numbers of a field, NaN for what is none; None if it is not there."""
    if name not in fields:
        return None
    numbers = []
    for part in fields[name].split():
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(math.nan)
    return numbers


def _shape(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    if fields.get("ObjectType", "Image").lower() != "image":
        raise InputError(f"{path}: holds a {fields['ObjectType']} (ObjectType), but a volume is needed")
    rank, sizes = _number(fields, "NDims", 0, path), fields.get("DimSize", "")
    shape = tuple(int(size) for size in sizes.split()) if re.fullmatch(r"[\d\s]+", sizes) else ()
    if not shape or len(shape) != rank or min(shape) < 1:
        raise InputError(f"{path}: its header has NDims = {rank} and DimSize = {sizes or 'nothing'}; it is damaged")
    if rank < 3:
        raise InputError(f"{path}: has the sizes {sizes}, but a volume is needed; give a stack of slices")
    return shape


def _is_list(named: str) -> bool:
    """Whether the voxels are in several files."""
    return named.upper().startswith("LIST") or "%" in named


def _voxels(header: _Header, shape: tuple[int, ...], path: Path) -> Array:
    """The voxels, the fastest axis first."""
    fields = header.fields
    kind = fields.get("ElementType", "that its header does not give").removesuffix("_ARRAY")
    if kind not in _TYPES:
        raise InputError(f"{path}: has voxels of the type {kind}; save it as integers or floats")
    order: Literal["<", ">"] = ">" if header.true("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    dtype: np.dtype = np.dtype(_TYPES[kind]).newbyteorder(order)
    named, binary = fields["ElementDataFile"], header.true("BinaryData") or "BinaryData" not in fields
    if _is_list(named):
        if len(shape) != 3:
            raise InputError(
                f"{path}: has {len(shape)} axes in several files, of which one volume cannot be read alone; save it as "
                "one file"
            )
        voxels = itk_voxels(path)
        if voxels.shape != shape:
            raise OSError(f"has {voxels.shape} voxels, not {shape}")
        return voxels
    file, begin = path, header.end
    if named.upper() != "LOCAL":
        file, begin = path.parent / named, 0
        if not file.is_file():
            raise InputError(f"{path}: its voxels are in {named}, which is missing; put that file beside it")
    if not binary:
        return read_text(file, begin, dtype, shape)
    skip, size = _number(fields, "HeaderSize", 0, path), file.stat().st_size
    if header.true("CompressedData"):
        return unpack(file, begin + max(skip, 0), 0, dtype, shape)
    needed = math.prod(shape) * dtype.itemsize
    begin = size - needed if skip == -1 else begin + max(skip, 0)
    if begin < 0 or size < begin + needed:
        raise OSError(f"{file.name} ends at byte {size}, but its voxels go on to {max(begin, 0) + needed}")
    return MappedArray(file, dtype, begin, shape, "F")


def _grid(
    fields: dict[str, str], names: str, path: Path
) -> tuple[np.ndarray | None, str | None, str | None, str | None]:
    """The affine, its unit, what is doubtful about it, and where it is from."""
    source = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    numbers = _numbers(fields, source)
    if numbers is None:
        return None, None, None, None
    order = [name for name in names if name != "C"]
    places = tuple(order.index(axis) for axis in "XYZ")
    sizes = [numbers[place] if place < len(numbers) else math.nan for place in places]
    if not all(0 < size < math.inf for size in sizes):
        return np.full((4, 4), math.nan), None, None, f"{source} {fields[source]}"
    doubt = None
    if source == "ElementSpacing" and (others := _numbers(fields, "ElementSize")) is not None:
        if not np.allclose(numbers, others[: len(numbers)] if len(others) >= len(numbers) else math.nan, rtol=0.01):
            other = fields["ElementSize"]
            doubt = f"its ElementSpacing is {fields[source]} and its ElementSize {other}, of which the first is taken"
    affine = itk_affine(
        "MetaImageIO", path, places, any(name in fields for name in ("TransformMatrix", "Rotation", "Orientation"))
    )
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    affine[:3, :3] = directions * sizes  # itk takes the ElementSize where there is no ElementSpacing, or 1
    name = fields.get("DistanceUnits", "")
    shown = " x ".join(f"{size:g}" for size in sizes)
    known = length(name)
    if name in ("", "?") and set(sizes) != {1.0}:
        doubt = doubt or f"its header has the voxel size {shown} (x, y, z) without a unit (DistanceUnits)"
    elif known is None:
        doubt = f"its unit of length, {name}, is not known, so that its voxel size {shown} has none"
    if name in ("", "?") or known is None:
        return affine, None, doubt, source
    affine[:3] *= known.scale
    return affine, known.unit, doubt, f"{source} ({name})"


def create(path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str) -> int:
    """
    Write an uncompressed volume of zeros with its affine.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4 in RAS coordinates, written in LPS, which itk takes as they are.
        unit: of the affine; nanometer is converted to micrometer, for pixel there is no unit.

    Returns:
        The byte of the file where its voxels begin; they follow each other without a gap, x fastest, z slowest.
    """
    name, scale = _UNITS[unit]
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=float)
    lps[:3] *= scale
    sizes = np.linalg.norm(lps[:3, :3], axis=0)

    def shown(values: Any) -> str:
        return " ".join(repr(float(value) + 0.0) for value in values)

    header: dict[str, Any] = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": not np.little_endian,
        "CompressedData": False,
        "TransformMatrix": shown((lps[:3, :3] / sizes).T.flat),  # the direction of X, then those of Y and Z
        "Offset": shown(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        **({"DistanceUnits": name} if name else {}),
        "ElementSpacing": shown(sizes),
        "DimSize": " ".join(str(size) for size in shape),
        "ElementType": next(key for key, value in _TYPES.items() if value == dtype.name),
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in header.items())
    with open(path, "wb") as file:
        file.write(text.encode("ascii"))
        file.truncate(len(text) + math.prod(shape) * dtype.itemsize)
    return len(text)


open_writer = writer_of(create)
