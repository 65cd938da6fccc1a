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

"""Identity of the inputs of a run: shape, voxel size and a digest of the content, whatever the name of the file."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError
from scripts.lattice import sample_boxes
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import VolumeSource, open_volume
from tqdm import tqdm

_LARGE = 2**30  # bytes from which on reading deserves a progress bar
_PART = 2**20  # bytes that are read at once
_digests: dict[tuple, str] = {}  # of this process, since each stage of a run asks for the same volume


def identify(path: str | os.PathLike | None, reading: ReadOptions = AS_STORED) -> dict | None:
    """
    Return the identity of a volume. It is the same for the same voxels and voxel size in any format and under any name.

    Args:
        path: file or folder, as in :func:`scripts.volumes.reading.open_volume`; None where a run has no such input.
        reading: how it is read.

    Returns:
        "name" of the file, for information, "shape" (x, y, z), "dtype", "voxel_size" (x, y, z), "unit", "affine" and
        "digest" of the stored voxels, all of them primitives; None without a path.

    Raises:
        InputError: as :func:`scripts.volumes.reading.read_volume`, except for faults of the values.
    """
    if path is None:
        return None
    with open_volume(path, reading) as source:
        return identify_source(source)


def identify_source(source: VolumeSource) -> dict:
    """
    Return the identity of an open volume, see :func:`identify`.

    Raises:
        InputError: its voxels cannot be read.
    """
    header = source.header
    return {
        "name": source.path.name,
        "shape": list(header.shape),
        "dtype": header.dtype,
        "voxel_size": [float(size) for size in header.voxel_size],
        "unit": header.unit,
        "affine": np.asarray(header.affine, dtype=float).tolist(),
        "digest": _digest_of_voxels(source),
    }


def identify_weights(path: str | os.PathLike | None) -> dict | None:
    """
    Return the identity of a weights file, which the same weights keep when they are saved again under another name.

    Args:
        path: file; None where a run has no such input.

    Returns:
        "name", for information, and "digest"; None without a path.

    Raises:
        InputError: the file cannot be read.
    """
    return None if path is None else {"name": str(path), "digest": _digest_of_weights(path)}


def digest_of_file(path: str | os.PathLike) -> str:
    """
    Return a digest (BLAKE2b, 16 bytes, hexadecimal) of the bytes of a file, or of the names and bytes of the files of a
    store.

    Raises:
        InputError: a file cannot be read.
    """
    place = Path(path)
    try:
        if place.is_dir():
            digest = _blake2b()
            for part in files_of(place):
                digest.update(f"{part.relative_to(place).as_posix()} {digest_of_file(part)}\n".encode())
            return digest.hexdigest()
        with open(place, "rb") as file:
            return hashlib.file_digest(file, _blake2b).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder in the order of their names."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _digest_of_voxels(source: VolumeSource) -> str:
    """Return the digest of the voxels, read in parts to bound the memory; of a sample where there are many."""
    place = source.fingerprint
    if place not in _digests:
        digest = _blake2b()
        shape, dtype = source.header.shape, np.dtype(source.header.dtype).newbyteorder("<")
        voxels = sum(math.prod(box.sizes) for box in sample_boxes(shape)) if source.is_large else math.prod(shape)
        bar = tqdm(
            desc=f"comparing {source.path.name}",
            total=voxels * dtype.itemsize,
            unit="B",
            unit_scale=True,
            disable=math.prod(shape) * dtype.itemsize < _LARGE,
        )
        with bar:
            for part in source.sample() if source.is_large else source.slabs():
                # rows of X, as the formats store them, so that nothing is copied where the byte order is this one
                digest.update(np.ascontiguousarray(part.T, dtype=dtype).data)
                bar.update(part.size * dtype.itemsize)
        _digests[place] = digest.hexdigest()
    return _digests[place]


def _digest_of_weights(path: str | os.PathLike) -> str:
    """Return the digest of the entries of PyTorch's zip file, without their folder, named after the first file."""
    digest = _blake2b()
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.partition("/")[2]: name for name in file.namelist()}
            for name in sorted(name for name in names if not name.startswith(".data/")):
                digest.update(f"{name} {file.getinfo(names[name]).file_size} ".encode())
                with file.open(names[name]) as entry:
                    while part := entry.read(_PART):
                        digest.update(part)
    except Exception:  # no zip file, or a damaged one, which is an error where it is loaded
        return digest_of_file(path)
    return digest.hexdigest()


def _blake2b() -> Any:
    return hashlib.blake2b(digest_size=16)
