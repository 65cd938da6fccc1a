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

"""N5, with the attributes of COSEM, of the N5 viewer, and of tensorstore and neuroglancer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
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
from scripts.volumes.formats.voxel_attributes import Statement, of_transform, settle, state

NAME = "N5"
SUFFIXES: tuple[str, ...] = (".n5",)
_FILE = "attributes.json"
_LAYOUT = ("dimensions", "blockSize", "dataType", "compression")
_COMPRESSIONS = ("raw", "gzip", "bzip2", "xz", "blosc", "zstd")  # that tensorstore reads


def is_store(path: Path) -> bool:
    """Whether a folder is an N5 container or a part of one, where a group needs no file of its own."""
    return (stores.has_file(path, _FILE) or stores.within(path, ".n5")) and not stores.has_slices(path)


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Args:
        path: a container, or a group or an array in one.
        selection: which volume to read; its dataset is the path of an array or a group, or the number of a level.

    Yields:
        The stack, with the position of its first voxel as the attributes give it.

    Raises:
        InputError: there is no such array, it is not a single-channel volume, or tensorstore cannot read it.
    """
    folder, node = stores.find_array(path, selection, _node, "N5")
    shape = node.shape or ()
    name = "the array" if folder == path else str(folder.relative_to(path))
    _check_compression(folder, node.attributes)
    names = (
        given_names(selection, shape)
        or letters(node.attributes.get("axes"), len(shape))
        or letters(_attributes(folder.parent).get("axes"), len(shape))
        or unnamed(folder, shape, "XYZ")
    )
    size = settle([*_of_array(names, node.attributes), *_of_group(names, folder, node.attributes)])
    with open_array("n5", folder, path, name, node.layout) as array:
        stack = array_stack(array, names, selection, path, size.of(name), array.chunk)
        yield stack._replace(parts=stores.parts_of(folder, (_FILE,)))


def _node(folder: Path) -> stores.Node | None:
    """What a folder of a container is."""
    attributes = stores.read_json(folder, _FILE)
    if attributes is not None and "dimensions" in attributes:
        layout = {key: attributes[key] for key in _LAYOUT if key in attributes}
        return stores.Node(_shape(folder / _FILE, attributes), attributes, (), layout)
    levels = ome_multiscales.levels_of(attributes or {}) or _numbered(folder)
    if attributes is None and not levels and stores.url_of(folder):
        return None
    return stores.Node(None, attributes or {}, levels) if attributes is not None or folder.is_dir() or levels else None


def _numbered(folder: Path) -> tuple[str, ...]:
    """The levels s0, s1 and so on of a group."""
    return tuple(
        itertools.takewhile(lambda name: "dimensions" in _attributes(folder / name), map("s{}".format, range(64)))
    )


def _attributes(folder: Path) -> dict[str, Any]:
    return stores.read_json(folder, _FILE) or {}


def _shape(file: Path, attributes: dict[str, Any]) -> tuple[int, ...]:
    missing = [key for key in ("dimensions", "blockSize", "dataType") if key not in attributes]
    if missing:
        raise InputError(f"{file}: has no {missing[0]}, without which the array cannot be read; copy it again")
    shape = attributes["dimensions"]
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise InputError(f"{file}: its dimensions {shape} are no list of sizes; copy it again")
    if 0 in shape:
        raise InputError(f"{file}: its dimensions {shape} have a size of 0, so that there are no voxels")
    return tuple(shape)


def _check_compression(folder: Path, attributes: dict[str, Any]) -> None:
    compression = attributes.get("compression", attributes.get("compressionType"))
    kind = compression.get("type") if isinstance(compression, dict) else compression
    if not isinstance(kind, str) or kind not in _COMPRESSIONS or not isinstance(compression, dict):
        raise InputError(
            f"{folder / _FILE}: is compressed with {kind}, which is not read here; save it with one of "
            f"{', '.join(_COMPRESSIONS)}"
        )


def _of_array(names: str, attributes: dict[str, Any]) -> list[Statement]:
    """What the attributes of an array say of itself."""
    statements = []
    if isinstance(attributes.get("transform"), dict):
        statements.append(of_transform(attributes["transform"], len(names)))
    return statements + _sizes(names, attributes, attributes.get("downsamplingFactors"), "")


def _of_group(names: str, folder: Path, attributes: dict[str, Any]) -> list[Statement]:
    """What the group above an array says of it as a level of its pyramid."""
    group = _attributes(folder.parent)
    if not group or "dimensions" in group:
        return []
    statements = []
    for each in _entries(group):
        if isinstance(each.get("transform"), dict) and str(each.get("path")).strip("/") == folder.name:
            found = of_transform(each["transform"], len(names))
            statements.append(found._replace(source=f"multiscales (level {folder.name})"))
    level = ome_multiscales.level_of(group, folder.name, len(names))
    if not statements and level is not None and level.voxel_size is not None:
        statements.append(level.voxel_size)
    factors = attributes.get("downsamplingFactors")
    if factors is None:
        number = folder.name[1:] if folder.name[:1] == "s" else ""
        every = group.get("scales", group.get("downsamplingFactors"))
        if number.isdecimal() and isinstance(every, list) and int(number) < len(every):
            factors = every[int(number)]
        elif number != "0":
            return statements  # of a level that nothing is said of
    return statements + _sizes(names, group, factors, " of the group")


def _entries(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The levels that the pyramids of a group name."""
    pyramids = group.get("multiscales")
    for pyramid in pyramids if isinstance(pyramids, list) else []:
        datasets = pyramid.get("datasets") if isinstance(pyramid, dict) else None
        yield from (each for each in (datasets if isinstance(datasets, list) else []) if isinstance(each, dict))


def _sizes(names: str, attributes: dict[str, Any], factors: Any, where: str) -> list[Statement]:
    """What is said in the order of the dimensions: by the N5 viewer, by tensorstore and neuroglancer."""
    statements = []
    pixels = attributes.get("pixelResolution")
    if pixels is not None:
        sizes, unit = (pixels.get("dimensions"), pixels.get("unit")) if isinstance(pixels, dict) else (pixels, None)
        statements.append(_in_order(f"pixelResolution{where}", names, sizes, unit, factors))
    if attributes.get("resolution") is not None:
        unit = attributes.get("units")
        statements.append(_in_order(f"resolution{where}", names, attributes["resolution"], unit, factors))
    return statements


def _in_order(source: str, names: str, sizes: Any, unit: Any, factors: Any) -> Statement:
    """Read numbers for all dimensions, or for those of space alone."""
    spatial = [place for place, letter in enumerate(names) if letter in "XYZ"]
    count = len(sizes) if isinstance(sizes, Sequence) and not isinstance(sizes, str) else len(names)
    axes = "".join(names[place] for place in spatial) if count == len(spatial) else names

    def fit(values: Any) -> Any:
        if isinstance(values, list) and len(values) == len(names) != len(axes):
            return [values[place] for place in spatial]
        return values

    return state(source, axes, sizes, None, fit(unit), fit(factors))
