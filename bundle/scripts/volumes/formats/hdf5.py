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

"""HDF5 files, with the attributes of CREMI, funlib, Fiji, Luxendo and PlantSeg."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError, one_line, warn_once
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.cast import cast
from scripts.volumes.formats.array_stack import array_stack
from scripts.volumes.formats.axis_names import given_names, letters, unnamed
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.straight_grid import straight_grid
from scripts.volumes.formats.voxel_attributes import of_funlib, settle, state
from scripts.volumes.units import MILLIMETERS
from scripts.volumes.write_all import write_all

NAME = "HDF5"
SUFFIXES: tuple[str, ...] = (".h5", ".hdf5", ".hdf")

DATASET = "volumes/raw"
"""Path of the array that is written, the one that CREMI's files use."""

_CHUNK = 64
_FILTERS = {
    4: "szip",
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32026: "Blosc2",
}
_MOST_LISTED = 12  # arrays in one line


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open an array of a file.

    Its voxel size is that of the first of these attributes of the array, or of a group that it is in: ``voxel_size`` in
    the ``units`` of the axes, ``resolution``, in nanometers unless there are ``units``, both with an ``offset``, and
    ``element_size_um`` (z, y, x). The names of its axes are those of ``axis_names``, ``axistags`` or its dimension
    labels; an array of three axes without names is z, y, x.

    Args:
        path: file to read.
        selection: which volume to read; without a dataset the only array of at least three axes.

    Yields:
        The stack. Boxes are read under the lock of h5py.

    Raises:
        InputError: there is no such array, or it is not a volume; a file that it refers to or a filter that it is
            compressed with is missing.
        OSError: the file is damaged.
    """
    import h5py  # not before such a file is opened

    with h5py.File(path, "r", locking="best-effort") as file:
        dataset = _dataset(h5py, file, selection, path)
        name = dataset.name.strip("/")
        _check_storage(h5py, dataset, name, path)
        attributes = _attributes(dataset)
        names = _axis_names(dataset, attributes, selection, path)
        statements = of_funlib(names, attributes, "nm")
        if "element_size_um" in attributes:
            statements.append(state("element_size_um", "ZYX", attributes["element_size_um"], None, "um"))
        yield array_stack(dataset, names, selection, path, settle(statements).of(name), dataset.chunks)


def _arrays(h5py: Any, group: Any, least: int) -> dict[str, tuple[int, ...]]:
    """The arrays of numbers in a group, with at least so many axes that are longer than 1: path in the file -> shape."""
    found = {}

    def visit(_: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset) and each.shape and each.dtype.kind in "uif":
            if sum(size > 1 for size in each.shape) >= least:
                found[each.name.strip("/")] = each.shape

    group.visititems(visit)
    return found


def _listed(arrays: dict[str, tuple[int, ...]]) -> str:
    each = [f"{name} ({' x '.join(str(size) for size in shape)})" for name, shape in arrays.items()]
    more = f" and {len(each) - _MOST_LISTED} more" if len(each) > _MOST_LISTED else ""
    return ", ".join(each[:_MOST_LISTED]) + more


def _dataset(h5py: Any, file: Any, selection: Selection, path: Path) -> Any:
    """The selected array."""
    if selection.dataset is None:
        arrays = _arrays(h5py, file, 3)
        if len(arrays) == 1:
            return file[next(iter(arrays))]
        if arrays:
            raise InputError(f"{path}: holds {len(arrays)} arrays; choose one with --dataset: {_listed(arrays)}")
        smaller = _arrays(h5py, file, 0)
        there = f"; it has {_listed(smaller)}" if smaller else ""
        raise InputError(f"{path}: holds no array of three axes{there}; a volume is needed")
    name = selection.dataset
    choice = f"--dataset {name}: "
    try:
        found = file[name]
    except (KeyError, ValueError, OSError) as error:
        _refuse_link(h5py, file, name, path)
        arrays = _arrays(h5py, file, 0)
        there = f"which has {_listed(arrays)}" if arrays else "which has no arrays"
        raise InputError(f"{choice}is not in {path}, {there}") from error
    if not isinstance(found, h5py.Dataset):
        arrays = _arrays(h5py, found, 0) if isinstance(found, h5py.Group) else {}
        there = f"give the path of an array in it: {_listed(arrays)}" if arrays else "which holds no array"
        kind = "a group" if isinstance(found, h5py.Group) else "no array"
        raise InputError(f"{choice}is {kind} of {path}; {there}")
    if found.shape is None or len(found.shape) < 3:
        sizes = " x ".join(str(size) for size in found.shape or ()) or "a single value"
        raise InputError(f"{choice}is {sizes} in {path}, but a volume is needed; choose an array of three axes")
    return found


def _refuse_link(h5py: Any, file: Any, name: str, path: Path) -> None:
    """Raise InputError where a part of the path of an array is a link that leads nowhere."""
    parts = name.strip("/").split("/")
    for end in range(1, len(parts) + 1):
        part = "/".join(parts[:end])
        link = file.get(part, getlink=True)
        with suppress(KeyError, ValueError, OSError):
            _ = file[part]
            continue
        if isinstance(link, h5py.ExternalLink):
            raise InputError(
                f"--dataset {name}: {part} of {path} is a link to {link.path} of the file {link.filename}, which "
                "cannot be opened; put that file beside it, or give it as the volume"
            )
        if isinstance(link, h5py.SoftLink):
            raise InputError(f"--dataset {name}: {part} of {path} is a link to {link.path}, which is not in the file")


def _check_storage(h5py: Any, dataset: Any, name: str, path: Path) -> None:
    """Raise InputError where voxels are in files that are missing or cannot be decompressed; warn of absent chunks."""
    filters = dataset.id.get_create_plist()
    for number in range(filters.get_nfilters()):
        code, _, _, stored = filters.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        try:
            import hdf5plugin  # noqa: F401  registers its filters
        except ImportError:
            pass
        if not h5py.h5z.filter_avail(code):
            known = _FILTERS.get(code) or stored.decode(errors="replace").split(";")[0].strip() or "a filter"
            raise InputError(
                f"{path}: {name} is compressed with {known} (HDF5 filter {code}), which h5py lacks here; "
                "pip install hdf5plugin, or save it with gzip (h5repack -f GZIP=1)"
            )
    others = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    for other in sorted({each for each in others if each != "."}):
        if "%" not in other and not (path.parent / other).exists():  # with % it stands for a row of files
            raise InputError(f"{path}: the voxels of {name} are in {other}, which is missing; put it beside this file")
    for other, *_ in dataset.external or ():
        if not Path(other).exists():  # from the current folder, as HDF5 looks for it
            raise InputError(f"{path}: the voxels of {name} are in {other}, which is missing; run where it is")
    if dataset.chunks is not None and not dataset.is_virtual:
        count = math.prod(math.ceil(size / chunk) for size, chunk in zip(dataset.shape, dataset.chunks))
        absent = count - dataset.id.get_num_chunks()
        if absent > 0:
            warn_once(
                f"{path}: {absent} of {count} chunks of {name} were never written; they read as {dataset.fillvalue}"
            )


def _text(value: Any) -> Any:
    """An attribute with bytes as text, and arrays as lists."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (np.ndarray, np.generic)):
        return _text(value.tolist())
    return [_text(each) for each in value] if isinstance(value, (list, tuple)) else value


def _attributes(dataset: Any) -> dict[str, Any]:
    """The attributes of an array, and those of the groups that it is in which it does not have itself."""
    found: dict[str, Any] = {}
    each = dataset
    while True:
        for name in ("axis_names", "axistags", "units", "element_size_um", "voxel_size", "resolution", "offset"):
            if name in each.attrs and name not in found:
                found[name] = _text(each.attrs[name])
        if each.name == "/":
            return found
        each = each.parent


def _axis_names(dataset: Any, attributes: dict[str, Any], selection: Selection, path: Path) -> str:
    """One letter for each axis."""
    given = given_names(selection, dataset.shape)
    if given is not None or selection.axes is not None:
        return given or "I" * len(dataset.shape)  # what does not fit is refused with the option
    name = dataset.name.strip("/")
    source, listed = "", None
    if "axis_names" in attributes:
        source, listed = "axis_names", attributes["axis_names"]
    elif "axistags" in attributes:
        try:
            source, listed = "axistags", [each["key"] for each in json.loads(attributes["axistags"])["axes"]]
        except (TypeError, ValueError, KeyError):
            warn_once(f"{path}: the axistags of {name} cannot be understood, and are not used")
    elif all(dimension.label for dimension in dataset.dims):
        source, listed = "dimension labels", [dimension.label for dimension in dataset.dims]
    if listed is None:
        return unnamed(path, dataset.shape, "ZYX")
    shown = [str(each) for each in listed] if isinstance(listed, list) else [str(listed)]
    # funlib's names for axes that nobody has named
    in_space = [place for place, each in enumerate(shown) if re.fullmatch(r"d\d+", each)]
    named = ["c" if re.fullmatch(r"c\d+\^?", each) else each for each in shown]
    for place, axis in zip(in_space, "zyx" if len(in_space) == 3 else ""):
        named[place] = axis
    found = letters(named, len(dataset.shape))
    if found is None or any(found.count(axis) != 1 for axis in "ZYX"):
        raise InputError(
            f"{path}: the {source} of {name} are {', '.join(shown)}, which are not z, y and x once each among its "
            f"{len(dataset.shape)} axes; say what they are with --axes"
        )
    return found


class _Writer:
    """
    Writes blocks into the chunks of an array (z, y, x), at their places in the file. HDF5 itself cannot go on, or even
    end, after a write that fails because the disk is full.
    """

    def __init__(self, file: int, places: np.ndarray, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype):
        self._file = file
        self._places = places
        self._shape = shape
        self._chunk = chunk
        self._dtype = dtype

    def write(self, block: np.ndarray, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Write a block, see :meth:`scripts.volumes.block_writer.BlockWriter.write`."""
        pages = cast(block.transpose(2, 1, 0), self._dtype)
        begin, end = (z, y, x), [first + size for first, size in zip((z, y, x), pages.shape)]
        steps = (range(low // step, -(-high // step)) for low, high, step in zip(begin, end, self._chunk))
        for index in product(*steps):
            corner = [number * step for number, step in zip(index, self._chunk)]
            low = [max(first, at) for first, at in zip(begin, corner)]
            high = [min(last, at + step) for last, at, step in zip(end, corner, self._chunk)]
            # planes of the chunk that the block has a part of; they follow each other in the file
            planes = np.zeros((high[0] - low[0], *self._chunk[1:]), self._dtype)
            place = int(self._places[index]) + (low[0] - corner[0]) * planes[0].nbytes
            wanted = [min(at + step, size) for at, step, size in zip(corner, self._chunk, self._shape)]
            if low[1:] != corner[1:] or high[1:] != wanted[1:]:
                os.preadv(self._file, [planes.data], place)
            inside = tuple(slice(first - at, last - at) for first, last, at in zip(low[1:], high[1:], corner[1:]))
            planes[(slice(None), *inside)] = pages[
                tuple(slice(first - at, last - at) for first, last, at in zip(low, high, begin))
            ]
            write_all(self._file, planes.data, place)


@contextmanager
def open_writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
) -> Iterator[BlockWriter]:
    """Write a file block by block, see :meth:`scripts.volumes.formats.base.Format.open_writer` and :func:`create`."""
    chunk = tuple(min(_CHUNK, size) for size in shape[::-1])
    places = create(path, shape, dtype, affine, unit, chunk)
    with open(path, "r+b", buffering=0) as file:
        yield _Writer(file.fileno(), places, shape[::-1], chunk, dtype)


def create(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str, chunk: tuple[int, ...]
) -> np.ndarray:
    """
    Write a file of zeros, which any HDF5 from 1.8 on reads.

    The array :data:`DATASET` (z, y, x) is stored in chunks without compression, so that blocks may come in any order.
    Its attributes are those of CREMI and of funlib in nanometers and that of Fiji in micrometers; for a volume without a
    unit there is only ``voxel_size``. There is no place for a rotation.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4, of which the voxel size is kept, and the origin if it is not turned.
        unit: of the affine.
        chunk: sizes of the chunks (z, y, x).

    Returns:
        The bytes of the file where the chunks begin, as an array with an axis for each of Z, Y and X.

    Raises:
        OSError: the disk is full, for instance.
    """
    import h5py  # not before such a file is written

    sizes, origin = straight_grid(affine)
    attributes: dict[str, Any] = {"axis_names": ["z", "y", "x"], "units": [""] * 3}
    attributes |= {"voxel_size": sizes[::-1], "offset": origin[::-1]}
    if unit in MILLIMETERS:
        nanometers = round(MILLIMETERS[unit] / MILLIMETERS["nanometer"])
        attributes["units"] = ["nm"] * 3
        for name in ("voxel_size", "offset"):
            attributes[name] = [value * nanometers for value in attributes[name]]
        attributes["resolution"] = attributes["voxel_size"]
        attributes["element_size_um"] = [value / 1000 for value in attributes["resolution"]]
    places = np.empty([-(-size // step) for size, step in zip(shape[::-1], chunk)], np.int64)
    with open(path, "wb") as room:  # fails as an operating system error where files may not be so large
        room.truncate(places.size * math.prod(chunk) * dtype.itemsize)
    try:
        with h5py.File(path, "w") as file:
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # a file that is made longer has zeros there
            dataset = file.create_dataset(DATASET, shape[::-1], dtype, chunks=chunk, dcpl=settings)
            for name, value in attributes.items():
                dataset.attrs[name] = value

            def note(stored: Any) -> None:
                places[tuple(at // step for at, step in zip(stored.chunk_offset, chunk))] = stored.byte_offset

            dataset.id.chunk_iter(note)
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        raise OSError(number, os.strerror(number)) if number else OSError(one_line(error)) from error
    return places
