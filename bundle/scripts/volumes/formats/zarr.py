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

"""zarr of version 2 and 3, with the pyramids of OME-Zarr and the attributes of funlib and COSEM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.formats import ome_multiscales, stores
from scripts.volumes.formats.array_stack import array_stack
from scripts.volumes.formats.axis_names import given_names, letters, unnamed
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.chunked_array import open_array
from scripts.volumes.formats.ome_zarr_writer import open_writer
from scripts.volumes.formats.voxel_attributes import Statement, of_funlib, of_transform, settle, state

__all__ = ["DTYPES", "NAME", "SUFFIXES", "is_store", "is_written", "open_stack", "open_writer"]

NAME = "OME-Zarr and zarr"
SUFFIXES: tuple[str, ...] = (".zarr", ".ome.zarr")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_FILES = (".zarray", ".zgroup", "zarr.json", ".zattrs")
_DEEPEST = 4  # levels between an array and the group that describes it


def is_store(path: Path) -> bool:
    """Whether a folder is a zarr store or a part of one."""
    return is_written(path) or (stores.within(path, ".zarr") and not stores.has_slices(path))


def is_written(path: Path) -> bool:
    """Whether a folder holds the metadata of a group or of an array."""
    return any(stores.has_file(path, name) for name in _FILES)


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Args:
        path: a store, or a group or an array in one.
        selection: which volume to read; its dataset is the path of an array or a group, or the number of a level.

    Yields:
        The stack, with the position of its first voxel as the attributes give it.

    Raises:
        InputError: there is no such array, it is not a single-channel volume, or tensorstore cannot read it.
    """
    folder, node = stores.find_array(path, selection, _node, "zarr")
    shape = node.shape or ()
    name = "the array" if folder == path else str(folder.relative_to(path))
    names, statements, channels = _described(folder, shape, node.attributes, selection)
    size = settle(statements)
    driver = "zarr3" if (node.layout or {}).get("zarr_format") == 3 else "zarr"
    with open_array(driver, folder, path, name, node.layout) as array:
        stack = array_stack(array, names, selection, path, size.of(name), array.chunk, channels)
        yield stack._replace(parts=stores.parts_of(folder, _FILES, _DEEPEST))


def _node(folder: Path) -> stores.Node | None:
    """What a folder of a store is."""
    described = stores.read_json(folder, "zarr.json")
    if described is not None:
        attributes = described.get("attributes")
        found: Any = attributes if isinstance(attributes, dict) else {}
        if described.get("node_type") == "array":
            layout = {key: value for key, value in described.items() if key not in ("attributes", "dimension_names")}
            names = described.get("dimension_names")
            named = {**found, "dimension_names": names} if names else found
            return stores.Node(_shape(folder / "zarr.json", described), named, (), layout)
        return stores.Node(None, found, ome_multiscales.levels_of(found))
    found = stores.read_json(folder, ".zattrs") or {}
    array = stores.read_json(folder, ".zarray")
    if array is not None:
        return stores.Node(_shape(folder / ".zarray", array), found, (), array)
    if found or stores.has_file(folder, ".zgroup"):
        return stores.Node(None, found, ome_multiscales.levels_of(found))
    return None


def _shape(file: Path, described: dict[str, Any]) -> tuple[int, ...]:
    shape = described.get("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise InputError(f"{file}: its shape {shape} is no list of sizes; copy it again")
    if 0 in shape:
        raise InputError(f"{file}: its shape {shape} has a size of 0, so that there are no voxels")
    if isinstance(described.get("dtype"), list):
        raise InputError(f"{file}: has voxels of several numbers each ({described['dtype']}); save one of them")
    return tuple(shape)


def _described(
    folder: Path, shape: tuple[int, ...], attributes: dict[str, Any], selection: Selection
) -> tuple[str, list[Statement], tuple[str, ...]]:
    """Names of the axes of an array, what the attributes say of its voxel size, and the names of its channels."""
    rank = len(shape)
    level = _level(folder, rank)
    statements = []
    names = given_names(selection, shape)
    if level is not None:
        if level.names is None and names is None:
            raise InputError(
                f"{folder}: its array has {rank} axes, and the multiscales of the group above {level.named}; say with "
                "--axes what they are"
            )
        names = names or level.names
        if level.voxel_size is not None:
            statements.append(level.voxel_size)
    for key in ("axis_names", "dimension_names", "_ARRAY_DIMENSIONS", "axes"):
        names = names or letters(attributes.get(key), rank)
    names = names or unnamed(folder, shape, "ZYX")
    return names, statements + _of_array(names, attributes), () if level is None else level.channels


def _level(folder: Path, rank: int) -> ome_multiscales.Level | None:
    """What the nearest group above an array that names it as a level of its pyramid says of it."""
    for group in list(folder.parents)[:_DEEPEST]:
        node = _node(group)
        if node is not None and node.levels:
            path = folder.relative_to(group).as_posix()
            return ome_multiscales.level_of(node.attributes, path, rank)
    return None


def _of_array(names: str, attributes: dict[str, Any]) -> list[Statement]:
    """What the attributes of an array itself say, those of COSEM, and those of funlib in the order of the array."""
    statements = []
    transform = attributes.get("transform")
    if isinstance(transform, dict):
        statements.append(of_transform(transform, len(names)))
    statements += of_funlib(names, attributes)
    pixels = attributes.get("pixelResolution")
    if isinstance(pixels, dict):
        statements.append(state("pixelResolution", "XYZ", pixels.get("dimensions"), None, pixels.get("unit")))
    return statements
