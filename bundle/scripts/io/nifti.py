# SPDX-License-Identifier: Apache-2.0
"""NIfTI volumes."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from scripts.errors import InputError

SUFFIXES = (".nii", ".nii.gz")

# Unit in the header -> (our unit, how many of our unit one of it is)
_READ_UNITS = {"meter": ("millimeter", 1000.0), "mm": ("millimeter", 1.0), "micron": ("micrometer", 1.0)}
# NIfTI has no nanometer
_WRITE_UNITS = {
    "millimeter": ("mm", 1.0),
    "micrometer": ("micron", 1.0),
    "nanometer": ("micron", 1e-3),
    "pixel": ("unknown", 1.0),
}
_NIFTI1_MAX_SIZE = 32767  # sizes are 16-bit there


def read(path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
    """
    Read a volume.

    Args:
        path: file to read.

    Returns:
        The voxels in (x, y, z) order, float32 if the header scales them, otherwise the dtype of the file; the 4x4
        affine of the file; its unit, None if the header names none.

    Raises:
        InputError: the file does not hold one single-channel volume.
    """
    if path.name.lower().endswith(".gz"):
        with gzip.open(path) as file:  # to the end, where the checksum is; nibabel stops before it
            while file.read(2**24):
                pass
    image = _open(path)
    array = np.asanyarray(image.dataobj).reshape(image.shape[:3])
    if array.dtype != image.get_data_dtype():  # scaled while it was read, to float64
        array = array.astype(np.float32)
    return array, *_grid(image)


def read_header(path: Path) -> tuple[tuple[int, ...], np.dtype, np.ndarray, str | None]:
    """
    Read what :func:`read` returns without the voxels; only an uncompressed file that ends too early is found.

    Args:
        path: file to read.

    Returns:
        The sizes (x, y, z), the dtype that :func:`read` gives, the affine and its unit.

    Raises:
        InputError: as :func:`read`.
    """
    image = _open(path)
    proxy: Any = image.dataobj  # of a file: where its voxels begin and how they are scaled
    shape, dtype = image.shape[:3], image.get_data_dtype()
    needed, size = proxy.offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if not path.name.lower().endswith(".gz") and size < needed:
        raise OSError(f"ends at byte {size}, but its voxels go on to {needed}")
    scaled = (proxy.slope, proxy.inter) != (1.0, 0.0)
    return shape, np.dtype(np.float32) if scaled else dtype, *_grid(image)


def _open(path: Path) -> nib.Nifti1Image:
    """Return the image of the file, or raise InputError when it is no single-channel volume."""
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise InputError(f"{path}: is not a NIfTI file in spite of its name; save it as .nii.gz or .ome.tif")
    if image.get_data_dtype().fields is not None:
        raise InputError(
            f"{path}: is a colour image of {len(image.get_data_dtype().fields)} channels; save one channel"
        )
    if any(size > 1 for size in image.shape[3:]):
        raise InputError(f"{path}: holds {int(np.prod(image.shape[3:]))} volumes or channels; save one of them")
    if len(image.shape) < 3:
        raise InputError(f"{path}: is a single 2-D image, but a volume is needed; give a stack of slices")
    return image


def _grid(image: nib.Nifti1Image) -> tuple[np.ndarray, str | None]:
    """Return the affine in our unit, and that unit."""
    affine = np.array(image.affine, dtype=float)
    unit, scale = _READ_UNITS.get(image.header.get_xyzt_units()[0], (None, 1.0))
    affine[:3] *= scale
    return affine, unit


def write(array: np.ndarray, affine: np.ndarray, unit: str, path: Path) -> None:
    """
    Write a volume with its affine.

    Args:
        array: voxels in (x, y, z) order.
        affine: 4x4 affine.
        unit: unit of the affine: millimeter or micrometer; nanometer is converted to micrometer; pixel becomes
            "unknown".
        path: file to write; compressed if it ends in ``.gz``.
    """
    nifti_unit, scale = _WRITE_UNITS[unit]
    scaled = np.array(affine, dtype=float)
    scaled[:3] *= scale
    image_class = nib.Nifti2Image if max(array.shape) > _NIFTI1_MAX_SIZE else nib.Nifti1Image
    image = image_class(array, scaled)
    image.header.set_xyzt_units(nifti_unit)
    nib.save(image, path)
