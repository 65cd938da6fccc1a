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

"""NRRD files, with an attached or a detached header."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.formats.array_stack import Array, array_stack
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.itk_reading import itk_affine, itk_voxels
from scripts.volumes.formats.mapped_array import MappedArray
from scripts.volumes.formats.packed import read_text, unpack
from scripts.volumes.formats.uncompressed import writer_of
from scripts.volumes.units import common_unit

NAME = "NRRD"
SUFFIXES: tuple[str, ...] = (".nrrd", ".nhdr")
ONLY_READ: tuple[str, ...] = (".nhdr",)

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "int8"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "uint8"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "int16"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "uint16"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "int32"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "uint32"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "int64"),
    **dict.fromkeys(("int64", "int64_t"), "int64"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "uint64"),
    "float": "float32",
    "double": "float64",
}
_SPACE_KINDS = ("domain", "space", "???", "none", "")
_PACKED, _TEXT, _BY_ITK = ("gzip", "gz", "bzip2", "bz2"), ("text", "txt", "ascii"), ("hex",)
_WRITTEN_TYPES = {"int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short"}
_WRITTEN_TYPES |= {"int32": "int", "uint32": "unsigned int", "float32": "float", "float64": "double"}
_MOST_LINES = 10_000  # of a header


class _Header(NamedTuple):
    """The fields of a header in lower case, and the byte of the file after its end."""

    fields: dict[str, str]
    end: int


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Its voxel size is that of the ``space directions`` in the ``space units``, or the ``spacings`` in the ``units``.
    Where the file has directions, the affine is in RAS coordinates, as that of a NIfTI file.

    Args:
        path: file to read.
        selection: which volume to read; its axes are in the order of ``sizes``, the fastest first.

    Yields:
        The stack. Voxels with the encoding raw are memory maps; others are read into memory.

    Raises:
        InputError: the file holds no single volume of one channel.
        OSError: it is truncated or damaged.
    """
    selection.refuse_dataset(path, "an NRRD file")
    header = _header(path)
    shape = _shape(header.fields, path)
    names = _names(header.fields, shape, selection, path)
    voxels = _voxels(header, shape, path)
    stack = array_stack(voxels, names, selection, path)
    affine, unit, doubt, source = _grid(header.fields, selection.axes or names, path)
    file, _ = _data_file(header, path)
    parts = () if file == path else (file or path.parent,)  # where files are listed, any in that folder may be one
    yield stack._replace(affine=affine, unit=unit, doubt=doubt, source=source, parts=parts)


def _header(path: Path) -> _Header:
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        if re.fullmatch(rb"NRRD\d{4}\s*", file.readline(16)) is None:
            raise InputError(f"{path}: is no NRRD file in spite of its name: it does not begin with NRRD")
        for _ in range(_MOST_LINES):
            line = file.readline(2**16)
            text = line.decode("utf-8", errors="replace").strip()
            if not line or not text:  # a detached header may end with its file
                return _Header(fields, file.tell())
            if text.startswith("#") or ":=" in text.split(": ")[0]:
                continue
            name, colon, value = text.partition(":")
            if not colon:
                break
            fields.setdefault(name.strip().lower(), value.strip())
            if name.strip().lower() in ("data file", "datafile") and value.strip().upper().startswith("LIST"):
                return _Header(fields, 0)  # names of files follow
    raise InputError(f"{path}: its header has a line that is no field ({text[:40]!r}); it is damaged, or no NRRD file")


def _field(fields: dict[str, str], *names: str) -> str | None:
    """A field, which may have several names."""
    return next((fields[name] for name in names if name in fields), None)


def _shape(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    sizes, dimension = _field(fields, "sizes"), _field(fields, "dimension")
    if sizes is None or dimension is None:
        raise InputError(f"{path}: its header has no {'sizes' if sizes is None else 'dimension'}; it is damaged")
    try:
        shape, rank = tuple(int(size) for size in sizes.split()), int(dimension)
    except ValueError:
        shape, rank = (), 0
    if len(shape) != rank or not shape or min(shape) < 1:
        raise InputError(f"{path}: its header has the dimension {dimension} and the sizes {sizes}; it is damaged")
    if rank < 3:
        raise InputError(f"{path}: has the sizes {sizes}, but a volume is needed; give a stack of slices")
    return shape


def _names(fields: dict[str, str], shape: tuple[int, ...], selection: Selection, path: Path) -> str:
    """A letter for each axis, the fastest first."""
    kinds = (_field(fields, "kinds") or "").lower().split() or ["domain"] * len(shape)
    if selection.axes is not None:
        return "I" * len(shape)  # the option counts
    if len(kinds) != len(shape):
        raise InputError(
            f"{path}: its header has {len(kinds)} kinds for {len(shape)} axes; say with --axes what they are"
        )
    in_space = [place for place, kind in enumerate(kinds) if kind in _SPACE_KINDS]
    if len(in_space) > 3:
        in_space = [place for place in in_space if shape[place] > 1]
    if len(in_space) != 3:
        raise InputError(
            f"{path}: has {len(in_space)} axes in space, of the sizes {' x '.join(map(str, shape))}; say with --axes "
            f"what they are, the fastest first, such as --axes {'XYZTC'[: len(shape)]}"
        )
    letters = ["T" if kind == "time" else "I" if kind in _SPACE_KINDS else "C" for kind in kinds]
    for place, letter in zip(in_space, "XYZ"):
        letters[place] = letter
    return "".join(letters)


def _voxels(header: _Header, shape: tuple[int, ...], path: Path) -> Array:
    """The voxels, the fastest axis first."""
    fields = header.fields
    kind, encoding = fields.get("type", ""), fields.get("encoding", "")
    if kind.lower() not in _TYPES:
        raise InputError(
            f"{path}: has voxels of the type {kind or 'that its header does not give'}; save it as integers or floats"
        )
    dtype = np.dtype(_TYPES[kind.lower()])
    file, begin = _data_file(header, path)
    if encoding.lower() in _BY_ITK or file is None:
        if len(shape) != 3:
            raise InputError(
                f"{path}: has {len(shape)} axes in several files or in the encoding {encoding}, of which one volume "
                "cannot be read alone; save it as one file with the encoding raw or gzip"
            )
        return _as_promised(itk_voxels(path), shape)
    if encoding.lower() not in ("raw", *_PACKED, *_TEXT):
        raise InputError(
            f"{path}: has the encoding {encoding or 'that its header does not give'}, which is none of raw, gzip, "
            "bzip2, ascii and hex; save it with one of them"
        )
    if dtype.itemsize > 1 and encoding.lower() not in _TEXT:
        endian = fields.get("endian", "").lower()
        if endian not in ("little", "big"):
            raise InputError(f"{path}: its header does not say whether it is little or big endian; it is damaged")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    try:
        lines, skip = (
            int(_field(fields, *names) or 0) for names in (("line skip", "lineskip"), ("byte skip", "byteskip"))
        )
    except ValueError:
        raise InputError(f"{path}: its line skip or byte skip is no number; it is damaged") from None
    if lines:
        with open(file, "rb") as opened:
            opened.seek(begin)
            for _ in range(lines):
                opened.readline()
            begin = opened.tell()
    if encoding.lower() in _PACKED:
        return unpack(file, begin, max(skip, 0), dtype, shape, encoding.lower().startswith("b"))
    if encoding.lower() in _TEXT:
        return read_text(file, begin, dtype, shape)
    needed, size = math.prod(shape) * dtype.itemsize, file.stat().st_size
    begin = size - needed if skip == -1 else begin + skip
    if begin < 0 or size < begin + needed:
        raise OSError(f"{file.name} ends at byte {size}, but its voxels go on to {max(begin, 0) + needed}")
    return MappedArray(file, dtype, begin, shape, "F")


def _as_promised(voxels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if voxels.shape != shape:
        raise OSError(f"has {voxels.shape} voxels, not {shape}")
    return voxels


def _data_file(header: _Header, path: Path) -> tuple[Path | None, int]:
    """The file of the voxels and the byte where they begin; None for a list of files, which is left to itk."""
    named = _field(header.fields, "data file", "datafile")
    if named is None:
        return path, header.end
    if named.upper().startswith("LIST") or re.search(r"%\d*d", named):
        return None, 0
    file = path.parent / named
    if not file.is_file():
        raise InputError(f"{path}: its voxels are in {named}, which is missing; put that file beside it")
    return file, 0


def _grid(
    fields: dict[str, str], names: str, path: Path
) -> tuple[np.ndarray | None, str | None, str | None, str | None]:
    """The affine, its unit, what is doubtful about it, and where it is from."""
    directions, spacings = _field(fields, "space directions"), _field(fields, "spacings")
    if directions is None and spacings is None:
        return None, None, None, None
    oriented = directions is not None
    source, given = ("space directions", directions) if oriented else ("spacings", spacings)
    vectors = _vectors(given or "", oriented)
    if len(vectors) != len(names) and len(names) != 3:
        names = "XYZ"
    in_space = [place for place, name in enumerate(names) if name in "XYZ"]
    sizes = [vectors[place] if place < len(vectors) else math.nan for place in in_space]
    if not all(0 < size < math.inf for size in sizes):
        return np.full((4, 4), math.nan), None, None, f"{source} {given}"
    order = [name for name in names if name != "C"]  # of the axes as itk has them
    affine = itk_affine("NrrdImageIO", path, tuple(order.index(axis) for axis in "XYZ"), oriented)
    units = re.findall(r'"([^"]*)"', _field(fields, "space units" if oriented else "units") or "")
    if not oriented and len(units) == len(names) > 3:
        units = [units[place] for place in in_space]
    shown = " x ".join(f"{size:g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
    if len(units) != 3 or not all(units):
        doubt = f"its header has the voxel size {shown} (x, y, z) without a unit" if set(sizes) != {1.0} else None
        return affine, None, doubt, source
    common = common_unit(units)
    if common is None:
        named = " and ".join(dict.fromkeys(units))
        return (
            affine,
            None,
            f"its unit of length, {named}, is not known, so that its voxel size {shown} has none",
            source,
        )
    if oriented:  # units of the axes of space
        affine[:3] *= np.array(common.scales)[:, None]
    else:
        by_axis = dict(zip((names[place] for place in in_space), common.scales))
        affine[:3] *= np.array([by_axis[axis] for axis in "XYZ"])[:, None]
    return affine, common.unit, None, f"{source} ({units[0]})"


def _vectors(given: str, oriented: bool) -> list[float]:
    """Their lengths, NaN where there is none; the sign of a spacing is kept."""
    lengths = []
    for part in re.findall(r"\([^)]*\)|[^\s()]+", given):
        try:
            numbers = [float(number) for number in part.strip("()").split(",")]
            lengths.append(math.hypot(*numbers) if oriented else numbers[0])
        except ValueError:
            lengths.append(math.nan)
    return lengths


def create(path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str) -> int:
    """
    Write an uncompressed volume of zeros with its affine.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4 in RAS coordinates, written in LPS, which itk takes as they are.
        unit: of the affine; for pixel there are no units.

    Returns:
        The byte of the file where its voxels begin; they follow each other without a gap, x fastest, z slowest.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=float)
    vectors = [f"({','.join(repr(float(value) + 0.0) for value in column)})" for column in lps[:3].T]
    header: dict[str, Any] = {
        "type": _WRITTEN_TYPES[dtype.name],
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": " ".join(str(size) for size in shape),
        "space directions": " ".join(vectors[:3]),
        "kinds": "domain domain domain",
        "endian": "little" if np.little_endian else "big",
        "encoding": "raw",
        "space origin": vectors[3],
    }
    if unit != "pixel":
        header["space units"] = " ".join([f'"{unit}"'] * 3)
    text = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in header.items()) + "\n"
    with open(path, "wb") as file:
        file.write(text.encode("ascii"))
        file.truncate(len(text) + math.prod(shape) * dtype.itemsize)
    return len(text)


open_writer = writer_of(create)
