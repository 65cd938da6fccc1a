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

"""Files of microscope vendors, read through bioio and the reader of the vendor's format that the user has installed."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Selection
from scripts.volumes.formats.array_stack import array_stack
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.voxel_attributes import VoxelSize, settle, state

# suffix -> the package that has its reader; that of Bio-Formats needs Java
_READERS = {
    ".czi": "bioio-czi",
    ".lif": "bioio-lif",
    ".nd2": "bioio-nd2",
    ".dv": "bioio-dv",
    ".r3d": "bioio-dv",
    ".sldy": "bioio-sldy",
    **dict.fromkeys((".oib", ".oif", ".oir", ".vsi", ".lsm", ".zvi", ".ims"), "bioio-bioformats"),
}

NAME = "vendors' files through bioio"
SUFFIXES: tuple[str, ...] = tuple(_READERS)


class _Lazy:
    """Reads boxes of a dask array one at a time, for a vendor's library need not stand several threads."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._lock = threading.Lock()
        self.shape: tuple[int, ...] = tuple(int(size) for size in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.chunk: tuple[int, ...] = tuple(int(size) for size in array.chunksize)

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        with self._lock:
            return np.asarray(self._array[index].compute(scheduler="synchronous"))


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a scene of a file.

    Args:
        path: file to read.
        selection: which volume to read; its dataset is the name or the number of a scene.

    Yields:
        The stack, with the voxel size and its units as the reader gives them.

    Raises:
        InputError: bioio or its reader is not installed, it does not know the file, or the selection is not a volume.
        Exception: of the reader, about a damaged file.
    """
    package = _READERS[path.suffix.lower()]
    image = _open(path, package)
    _choose_scene(image, selection, path)
    array = _Lazy(image.dask_data)
    sizes, properties = image.physical_pixel_sizes, image.dimension_properties
    known = [getattr(sizes, axis) for axis in "ZYX"]
    units = [getattr(getattr(properties, axis), "unit", None) for axis in "ZYX"]
    if all(size is None for size in known):
        size = VoxelSize(doubt=f"{package} finds no voxel size in it")
    elif None in known:
        told = " x ".join("?" if each is None else f"{each:g}" for each in known)
        size = VoxelSize(doubt=f"{package} finds the voxel size {told} (z, y, x), which is not complete")
    else:
        names = None if None in units else [str(unit) for unit in units]
        size = settle([state(f"voxel size by {package}", "ZYX", known, None, names)])
    yield array_stack(array, image.dims.order, selection, path, size, array.chunk, _channels(image))


def _open(path: Path, package: str) -> Any:
    """The file as bioio has it."""
    try:
        from bioio import BioImage  # not before such a file is opened
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise InputError(
            f"{path}: {path.suffix} files are read through bioio, which is not installed: pip install bioio {package}; "
            "or save it as OME-TIFF"
        ) from None
    try:
        return BioImage(path)
    except UnsupportedFileFormatError:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise InputError(
                f"{path}: bioio has no reader of {path.suffix} files here: pip install {package}; or save it as "
                "OME-TIFF"
            ) from None
        raise InputError(
            f"{path}: is no {path.suffix} file in spite of its name, or one that {package} does not know; save it as "
            "OME-TIFF"
        ) from None


def _channels(image: Any) -> list[str]:
    """Names of the channels, none where the reader has none."""
    return [str(name) for name in getattr(image, "channel_names", None) or ()]


def _choose_scene(image: Any, selection: Selection, path: Path) -> None:
    scenes = [str(scene) for scene in image.scenes]
    chosen = selection.dataset
    if chosen is None:
        if len(scenes) > 1:
            raise InputError(f"{path}: holds {len(scenes)} scenes; choose one with --dataset: {', '.join(scenes)}")
        return
    if chosen in scenes:
        image.set_scene(scenes.index(chosen))
    elif chosen.isdecimal() and int(chosen) < len(scenes):
        image.set_scene(int(chosen))
    else:
        raise InputError(f"--dataset {chosen}: is no scene of {path}, which has {', '.join(scenes)}")
