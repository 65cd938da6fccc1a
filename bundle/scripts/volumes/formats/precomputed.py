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

"""Neuroglancer's precomputed volumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.formats import stores
from scripts.volumes.formats.array_stack import array_stack
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.chunked_array import open_array
from scripts.volumes.formats.voxel_attributes import settle, state

NAME = "neuroglancer precomputed"
SUFFIXES: tuple[str, ...] = ()  # its folders are called anything
_FILE = "info"
_ENCODINGS = ("raw", "jpeg", "png", "compressed_segmentation")  # that tensorstore reads


def is_store(path: Path) -> bool:
    """Whether a folder is such a volume, or a scale of one."""
    return any(stores.has_file(each, _FILE) for each in (path, path.parent)) and not stores.has_slices(path)


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Args:
        path: folder with a file "info", or one of a scale in it.
        selection: which volume to read; its dataset is the number of a scale or its key, 0 without it.

    Yields:
        The stack, in nanometer, with ``voxel_offset`` as the position of its first voxel.

    Raises:
        InputError: there is no such scale, it is not a single-channel volume, or tensorstore cannot read it.
    """
    if not stores.has_file(path, _FILE):
        path, selection = path.parent, selection._replace(dataset=_key_in(path, selection))
    info = stores.read_json(path, _FILE)
    if info is None:
        raise InputError(f"{path}: has no file {_FILE}, which a precomputed volume begins with; copy it again")
    scales = info.get("scales")
    if not isinstance(scales, list) or not scales or not all(isinstance(each, dict) for each in scales):
        raise InputError(f"{path / _FILE}: has no list of scales, so that it is no volume; give the folder of an image")
    number = _chosen(path, scales, selection.dataset)
    scale, where = scales[number], f"{path / _FILE}: scale {number}"
    size = _three_integers(scale, "size", where)
    if any(each < 1 for each in size):
        raise InputError(f"{where} has the size {' x '.join(map(str, size))}, so that there are no voxels")
    begin = _three_integers({"voxel_offset": [0, 0, 0], **scale}, "voxel_offset", where)
    if scale.get("encoding") not in _ENCODINGS:
        raise InputError(
            f"{where} has the encoding {scale.get('encoding')}, which is not read here; save it with one of "
            f"{', '.join(_ENCODINGS)}"
        )
    stated = state("resolution", "XYZ", scale.get("resolution"), None, "nm")
    if stated.fault is None:
        stated = stated._replace(origin={axis: stated.sizes[axis] * first for axis, first in zip("XYZ", begin)})
    voxels = settle([stated])
    name = f"scale {scale.get('key', number)}"
    with open_array("neuroglancer_precomputed", path, path, name, scale_index=number) as array:
        stack = array_stack(array, "XYZC", selection._replace(dataset=None), path, voxels.of(name), array.chunk)
        parts = () if stores.url_of(path) else (path / str(scale.get("key", number)), path / _FILE)
        yield stack._replace(parts=parts)


def _key_in(path: Path, selection: Selection) -> str:
    """The key of the scale that a folder is."""
    selection.refuse_dataset(path, "a scale of a precomputed volume")
    return path.name


def _chosen(path: Path, scales: list[dict[str, Any]], dataset: str | None) -> int:
    """The index of the selected scale."""
    keys = [str(each.get("key")).strip("/") for each in scales]
    if dataset is None:
        return 0
    if dataset.strip("/") in keys:
        return keys.index(dataset.strip("/"))
    if dataset.isdecimal() and int(dataset) < len(scales):
        return int(dataset)
    raise InputError(
        f"--dataset {dataset}: there is no such scale in {path}; its scales are {', '.join(keys)}, numbered from 0"
    )


def _three_integers(scale: dict[str, Any], name: str, where: str) -> list[int]:
    values = scale.get(name)
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(each, int) for each in values):
        raise InputError(f"{where} has the {name} {values}, which is not three whole numbers; copy it again")
    return values
