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

"""NIfTI volumes."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from scripts.errors import InputError
from scripts.volumes.axes import NO_SELECTION, Order, Selection, order_of
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.uncompressed import open_uncompressed

NAME = "NIfTI"
SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz")

# Code in the header -> (our unit, its multiple)
_READ_UNITS: dict[int, tuple[str | None, float]] = {
    0: (None, 1.0),
    1: ("millimeter", 1000.0),
    2: ("millimeter", 1.0),
    3: ("micrometer", 1.0),
}
_UNIT_BITS = 7  # of the code; the other bits are the unit of time
# NIfTI has no nanometer
_WRITE_UNITS = {
    "millimeter": ("mm", 1.0),
    "micrometer": ("micron", 1.0),
    "nanometer": ("micron", 1e-3),
    "pixel": ("unknown", 1.0),
}
_NIFTI1_MAX_SIZE = 32767  # sizes are 16-bit there


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open a volume.

    Args:
        path: file to read.
        selection: which volume to read; the axes are XYZT where it names none.

    Yields:
        The stack, float32 if the header scales the voxels, otherwise in the dtype of the file. A compressed file is
        unpacked from its beginning again for a slice before the last one read. A file that does not have Z last is read
        into memory.

    Raises:
        InputError: the file does not hold one single-channel volume.
        OSError: the file is truncated; of a compressed file this is found when its last slice is read.
    """
    selection.refuse_dataset(path, "a NIfTI file")
    image = _open(path, selection)
    x, y, z = image.shape[:3]
    order = (
        Order("XYZ", (x, y, z))
        if selection == NO_SELECTION
        else order_of("XYZTCII"[: len(image.shape)], image.shape, selection, path)
    )
    proxy: Any = image.dataobj  # of a file: where its voxels begin and how they are scaled
    shape, dtype = order.sizes, image.get_data_dtype()
    compressed = path.name.lower().endswith(".gz")
    # where the voxels of the time point and channel begin: x varies fastest, then y, z, time and channel
    first = proxy.offset + sum(number * math.prod(image.shape[:at]) for at, number in order.picks) * dtype.itemsize
    needed, size = proxy.offset + math.prod(image.shape) * dtype.itemsize, path.stat().st_size
    if not compressed and size < needed:
        raise OSError(f"ends at byte {size}, but its voxels go on to {needed}")
    scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
    affine, unit, doubt = _grid(image, order, path)
    dtype_read = np.dtype(np.float32) if scaled else dtype
    turn = np.transpose if order.letters == "YXZ" else np.asanyarray
    by_slices = order.letters[2] == "Z"  # otherwise the voxels of a slice are spread over the file
    if by_slices and not compressed and not scaled:
        plane, begin = shape[:2], int(first)
        size = math.prod(plane) * dtype.itemsize

        def map_slice(index: int) -> np.ndarray:
            # mapped for each slice anew, since mapped pages count as memory of the process
            return turn(np.memmap(path, dtype, "r", begin + index * size, plane, "F"))

        yield Stack(order.shape, dtype_read, affine, unit, map_slice, False, doubt)
        return
    opener: Any = gzip.open if compressed else open
    with opener(path, "rb") as file:
        # of an open file, which keeps its position: nibabel's own proxy unpacks from the beginning for each slice
        voxels: Any = ArrayProxy(file, (shape, dtype, int(first), proxy.slope, proxy.inter))
        if not by_slices:
            whole = np.asanyarray(voxels).astype(dtype_read, copy=False).transpose(order.to_xyz)
            _read_to_end(file)
            yield Stack(order.shape, dtype_read, affine, unit, lambda index: whole[:, :, index], False, doubt)
            return

        def decode(index: int) -> np.ndarray:
            array = np.asanyarray(voxels[:, :, index]).astype(dtype_read, copy=False)
            if index == order.shape[2] - 1:
                _read_to_end(file)
            return turn(array)

        yield Stack(order.shape, dtype_read, affine, unit, decode, True, doubt)


def _read_to_end(file: IO[bytes]) -> None:
    """Read to the end, where the checksum of a compressed file is compared."""
    while file.read(2**24):
        pass


def _open(path: Path, selection: Selection) -> nib.Nifti1Image:
    """Return the image of the file, or raise InputError when the selection is not a single-channel volume."""
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise InputError(f"{path}: is not a NIfTI file in spite of its name; save it as .nii.gz or .ome.tif")
    if image.get_data_dtype().fields is not None:
        raise InputError(f"{path}: is a color image of {len(image.get_data_dtype().fields)} channels; save one channel")
    if len(image.shape) < 3:
        raise InputError(f"{path}: is a single 2-D image, but a volume is needed; give a stack of slices")
    if any(size > 1 for size in image.shape[3:]) and selection == NO_SELECTION:
        count, single = math.prod(image.shape[3:]), image.shape[2] == 1
        offer = "; if they are its slices, add --axes XYZ" if single and len(image.shape) == 4 else ""
        raise InputError(
            f"{path}: holds {count} volumes or channels; choose one with --time (the fourth axis) and --channel "
            f"(the fifth), or save one of them{offer}"
        )
    return image


def _grid(image: nib.Nifti1Image, order: Order, path: Path) -> tuple[np.ndarray, str | None, str | None]:
    """Return the affine, its unit, and what is doubtful about them."""
    header: Any = image.header
    code = int(header["xyzt_units"]) & _UNIT_BITS
    doubt = None
    if code not in _READ_UNITS:
        doubt = f"its unit of length, code {code}, is not known, so that its voxel size is taken without a unit"
    unit, scale = _READ_UNITS.get(code, (None, 1.0))
    (sform, sform_code), (qform, qform_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    if sform_code and qform_code:
        sizes, others = (np.linalg.norm(each[:3, :3], axis=0) for each in (sform, qform))
        if not np.allclose(sizes, others, rtol=0.01, atol=0):
            first, second = (" x ".join(f"{size:g}" for size in each) for each in (sizes, others))
            doubt = f"its sform has the voxel size {first} and its qform {second}, of which the first is taken"
    # slices along the fourth axis or later take the column of the spatial axis that is missing
    left = [column for column in range(3) if column not in order.places]
    column_of = {letter: place if place < 3 else left.pop() for letter, place in zip(order.letters, order.places)}
    affine = np.array(image.affine, dtype=float)[:, [*(column_of[axis] for axis in "XYZ"), 3]]
    affine[:3] *= scale
    return affine, unit, doubt


@contextmanager
def open_writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
) -> Iterator[BlockWriter]:
    """Write a volume block by block, see :meth:`scripts.volumes.formats.base.Format.open_writer` and :func:`create`."""
    compressed = path.name.lower().endswith(".gz")
    raw = path.with_suffix("") if compressed else path  # only an uncompressed file can be written in any order
    try:
        with open_uncompressed(raw, create(raw, shape, dtype, affine, unit), shape, dtype) as writer:
            yield writer
        if compressed:
            compress(raw, path)
    finally:
        if compressed:
            raw.unlink(missing_ok=True)


def create(path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str) -> int:
    """
    Write an uncompressed volume of zeros with its affine.

    Args:
        path: file to write.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4 affine.
        unit: unit of the affine: millimeter or micrometer; nanometer is converted to micrometer; pixel becomes
            "unknown".

    Returns:
        The byte of the file where its voxels begin; they follow each other without a gap, x fastest, z slowest.
    """
    nifti_unit, scale = _WRITE_UNITS[unit]
    scaled = np.array(affine, dtype=float)
    scaled[:3] *= scale
    image_class = nib.Nifti2Image if max(shape) > _NIFTI1_MAX_SIZE else nib.Nifti1Image
    image = image_class(np.broadcast_to(np.zeros(1, dtype), shape), scaled)
    header: Any = image.header
    header.set_xyzt_units(nifti_unit)
    header.set_slope_inter(1, 0)
    begin = int(header.single_vox_offset)
    header.set_data_offset(begin)
    with open(path, "wb") as file:
        header.write_to(file)
        file.truncate(begin + math.prod(shape) * dtype.itemsize)
    return begin


def compress(path: Path, compressed: Path) -> None:
    """
    Compress a volume to ``.nii.gz``.

    Args:
        path: file to read.
        compressed: file to write.
    """
    # nibabel's level: noise does not compress, and higher levels only take longer
    with open(path, "rb") as source, gzip.open(compressed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(source, target, 2**20)
