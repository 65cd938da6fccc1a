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

"""Writing of volumes, block by block or whole; the file appears under its name once it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from monai.data import MetaTensor
from scripts.errors import InputError, warn_once
from scripts.lattice import Turn
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.claim import Claim, there_at_start
from scripts.volumes.formats.registry import format_to_write, formats_with
from scripts.volumes.paths import as_path
from scripts.volumes.whole_file import whole_file

# types of voxel that formats lack or that few programs read, and the next one that they have
_STORED_AS = {"int64": "int32", "uint64": "uint32", "float16": "float32"}


@contextmanager
def volume_writer(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    dtype: str,
    affine: np.ndarray,
    unit: str,
    overwrite: bool = False,
) -> Iterator[BlockWriter]:
    """
    Write a volume block by block. The file appears at the end of the context, and not if it ends in an exception.

    A file that exists at the beginning, or did when this process claimed it (:class:`scripts.volumes.claim.Claim`), is
    replaced; :func:`scripts.volumes.outputs.check_output` decides before whether it may be. TIFF keeps only the voxel
    size of the affine, NIfTI all of it.

    Args:
        path: file, whose suffix decides on the format; missing folders are made.
        shape: number of voxels (x, y, z).
        dtype: of the volume; the file has that of :func:`stored_dtype`.
        affine: 4x4.
        unit: of the affine.
        overwrite: whether a file that appears in the meantime is replaced as well. If not, it is left alone, and the
            volume is kept beside it under another name.

    Yields:
        The writer of blocks. Voxels that are never written are 0.

    Raises:
        InputError: the format is not supported, the file cannot be written, or another run writes it.
    """
    check_overwrite(overwrite)
    file = as_path(path)
    kind, target = format_to_write(file), stored_dtype(dtype, file)
    with Claim(file), whole_file(file, overwrite or there_at_start(file)) as partial:
        with kind.open_writer(partial, shape, target, np.asarray(affine, dtype=float), unit) as writer:
            yield writer


def check_overwrite(overwrite: bool) -> None:
    """Raise InputError for text, which Python would take for true whatever it says."""
    if not isinstance(overwrite, bool):
        raise InputError(f"--overwrite {overwrite}: must be true or false")


def write_volume(volume: MetaTensor, path: str | os.PathLike, overwrite: bool = False) -> None:
    """
    Write a volume with its voxel size; the file appears once it is complete.

    Args:
        volume: (1, X, Y, Z) or (X, Y, Z) with ``affine`` and ``meta["unit"]``. If ``meta["dtype"]`` is there, it is
            the dtype written: for integers the values are rounded and clipped to its range. If ``meta["axis"]`` is
            there, the volume is turned back so that its Z becomes that axis.
        path, overwrite: as in :func:`volume_writer`.

    Raises:
        InputError: the format is not supported, the file cannot be written, or another run writes it.
        ValueError: the shape is another, or there are NaN or infinite values.
    """
    array = volume.detach().cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"a volume has the shape (1, X, Y, Z) or (X, Y, Z), not {tuple(array.shape)}")
    turn = Turn.of(str(volume.meta.get("axis", "z")))
    x, y, z = turn.to_file(array.shape)
    dtype, unit = str(volume.meta.get("dtype", array.dtype.name)), str(volume.meta.get("unit", "pixel"))
    affine = turn.affine_of_file(np.asarray(volume.affine))
    with volume_writer(path, (x, y, z), dtype, affine, unit, overwrite) as writer:
        writer.write(array.transpose(turn.back))


def tell_written(path: str | os.PathLike, shape: Sequence[int], affine: np.ndarray, unit: str) -> None:
    """Print one line about a volume (x, y, z) that was written."""
    sizes = " x ".join(str(size) for size in shape)
    voxel = " x ".join(f"{size:.6g}" for size in np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0))
    print(f"wrote {path}: {sizes} voxels (x, y, z) of {voxel} {unit}")


def stored_dtype(dtype: str, path: str | os.PathLike) -> np.dtype:
    """
    Return the type of voxel in the file of a volume: the same, or the next one that the format has, of which a line is
    printed.

    Args:
        dtype: of the volume.
        path: file to be written.

    Raises:
        InputError: the format has none that holds the same values.
    """
    wanted = np.dtype(_STORED_AS.get(dtype, dtype))
    kind = format_to_write(as_path(path))
    dtypes = getattr(kind, "DTYPES", (wanted.name,))
    if wanted.name in dtypes:
        return wanted
    exact = next((np.dtype(name) for name in dtypes if np.can_cast(wanted, name, "safe")), None)
    if exact is None:
        raise InputError(
            f"{path}: {kind.NAME} has no voxels of type {wanted}; give a name of another format, "
            f"{formats_with(wanted.name)}"
        )
    warn_once(f"{path}: {kind.NAME} has no voxels of type {wanted}, so that the same values are stored as {exact}")
    return exact
