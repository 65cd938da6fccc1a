# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of volumes: one module per format, and here what they have in common."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from scripts.command_line import true_or_false
from scripts.errors import InputError, one_line
from scripts.io import nifti, slice_folder, tiff
from scripts.io.whole_file import write_whole

# a longer suffix comes before the one that it ends in
_WRITE_SUFFIXES = (".ome.tiff", ".ome.tif", *tiff.SUFFIXES, ".nii.gz", ".nii")
_FORMATS = "TIFF (.tif, .tiff, .ome.tif, .ome.tiff) and NIfTI (.nii, .nii.gz)"
# dtypes that the formats lack or that only some programs read, and what holds the same values
_STORED_AS = {"int64": "int32", "uint64": "uint32", "float16": "float32"}
_LARGEST_EXACT_INTEGER = 2**24  # of float32


class Header(NamedTuple):
    """What is known of a volume without its voxels.

    Attributes:
        shape: number of voxels (x, y, z).
        dtype: NumPy's name of the file's type of voxel.
        affine: 4x4, with the voxel size.
        unit: of the affine: "nanometer", "micrometer", "millimeter", or "pixel" with voxels of size 1 when nothing is
            known.
    """

    shape: tuple[int, int, int]
    dtype: str
    affine: np.ndarray
    unit: str


def read_header(path: str | os.PathLike, spacing: Sequence[float] | None = None) -> Header:
    """
    Read sizes, type and voxel size of a volume, and nothing else.

    Args:
        path: file or folder.
        spacing: as in :func:`read_volume`.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels can show.
    """
    file = _as_path(path)
    new_sizes = None if spacing is None else _check_spacing(spacing)
    shape, dtype, affine, unit = _read_with("read_header", file)
    x, y, z = (int(size) for size in shape)
    _check_layout((x, y, z), dtype, file)
    affine, unit = _grid(affine, unit, new_sizes, file)
    return Header((x, y, z), dtype.newbyteorder("=").name, affine, unit)


def read_volume(path: str | os.PathLike, spacing: Sequence[float] | None = None) -> MetaTensor:
    """
    Read a volume from a TIFF or NIfTI file or from a folder of 2-D slices (PNG or TIFF).

    Args:
        path: file or folder.
        spacing: voxel size [z, y, x] that replaces the one in the file, in the unit of the file, or in micrometer
            when the file names none.

    Returns:
        Volume (1, X, Y, Z), float32, with the values of the file; ``affine`` with the voxel size;
        ``meta["unit"]`` of the affine: "nanometer", "micrometer", "millimeter", or "pixel" with voxels of size 1 when
        nothing is known; ``meta["dtype"]`` of the file; ``meta["filename_or_obj"]``.

    Raises:
        InputError: the file is missing, damaged or of another format; it is no single-channel volume of at least two
            slices; its voxels are not finite, all the same, not numbers, or too large for float32; the spacing is not
            three positive numbers.
    """
    file = _as_path(path)
    new_sizes = None if spacing is None else _check_spacing(spacing)
    array, affine, unit = _read_with("read", file)
    voxels = _check_voxels(array, file)
    affine, unit = _grid(affine, unit, new_sizes, file)
    meta = {"unit": unit, "dtype": array.dtype.name, "filename_or_obj": str(file)}
    return MetaTensor(torch.from_numpy(voxels)[None], affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def check_volume(path: str | os.PathLike, spacing: Sequence[float] | None = None) -> None:
    """
    Read a volume to its last voxel and keep nothing of it, before work that must not begin on a file that is bad.

    Raises:
        InputError: as :func:`read_volume`.
    """
    read_volume(path, spacing)


def write_volume(volume: MetaTensor, path: str | os.PathLike) -> None:
    """
    Write a volume with its voxel size; the name appears only once the file is complete.

    TIFF keeps the voxel size of the affine alone, NIfTI the whole affine.

    Args:
        volume: (1, X, Y, Z) or (X, Y, Z) with ``affine`` and ``meta["unit"]``. If ``meta["dtype"]`` is there, it is
            the dtype written: for integers the values are rounded and clipped to its range.
        path: file, whose name decides on the format; missing folders are made.

    Raises:
        InputError: the format is not supported, or the file cannot be written.
        ValueError: the shape is another, or there are NaN or infinite values.
    """
    file = _as_path(path)
    suffix = _write_suffix(file)
    array = volume.detach().cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"a volume has the shape (1, X, Y, Z) or (X, Y, Z), not {tuple(array.shape)}")
    array = _to_dtype(array, str(volume.meta.get("dtype", array.dtype.name)))
    affine = np.asarray(volume.affine, dtype=float)
    unit = str(volume.meta.get("unit", "pixel"))
    writer: Any = nifti.write if suffix in nifti.SUFFIXES else tiff.write
    write_whole(file, lambda partial: writer(array, affine, unit, partial))


def check_output(path: str | os.PathLike, overwrite: bool | str = False) -> None:
    """
    Check, before the work, that a volume can be written.

    Args:
        path: file to be written.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the format is not supported, the file exists, or its folder cannot be made or written to.
    """
    file = _as_path(path)
    replace = true_or_false(overwrite, "overwrite")
    if file.is_dir():
        raise InputError(f"{file}: is a folder, but the output is one file; the formats are {_FORMATS}")
    _write_suffix(file)
    if file.exists() and not replace:
        raise InputError(f"{file}: exists already; give another name, or --overwrite true to replace it")
    folder = file.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{file}: cannot be written, because {folder} is a file and not a folder")
    try:
        # a trial, for permissions say nothing about read-only file systems or the superuser
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{file}: cannot be written to the folder {folder} ({error.strerror})") from error


def stored_dtype(dtype: str) -> np.dtype:
    """Return the type of voxel that a file of a volume of ``dtype`` gets: its own, or what holds the same values."""
    return np.dtype(_STORED_AS.get(dtype, dtype))


def _as_path(path: Any) -> Path:
    """Return the path; the command line turns a name of digits into a number and a missing value into True."""
    if path is None or path == "" or isinstance(path, bool):
        raise InputError("a file name is needed, but none was given")
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a file name is needed, not {path!r}; write a name of digits as ./{path}")
    return Path(path)


def _read_with(function: str, file: Path) -> Any:
    """Return what ``function`` of the module for the file's format returns."""
    if not file.exists():
        raise InputError(f"{file}: no such file or folder")
    if file.is_dir():
        reader: Any = slice_folder
    elif file.name.lower().endswith(tiff.SUFFIXES):
        reader = tiff
    elif file.name.lower().endswith(nifti.SUFFIXES):
        reader = nifti
    else:
        raise InputError(f"{file}: cannot be read; the formats are {_FORMATS} and folders of PNG or TIFF slices")
    try:
        return getattr(reader, function)(file)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        raise InputError(f"{file}: cannot be read; is it complete and of that format? ({one_line(error)})") from error


def _grid(
    affine: np.ndarray | None, unit: str | None, new_sizes: tuple[float, float, float] | None, file: Path
) -> tuple[np.ndarray, str]:
    """Return the affine and the unit of a volume from those of its file, which may be None, and of --spacing."""
    affine = np.eye(4) if affine is None else affine
    if new_sizes is not None:
        return _with_voxel_size(affine, new_sizes), unit or "micrometer"
    if not (np.isfinite(affine).all() and (np.linalg.norm(affine[:3, :3], axis=0) > 0).all()):
        raise InputError(f"{file}: its header has a voxel size that is not positive; give --spacing '[z,y,x]'")
    return affine, unit or "pixel"


def _write_suffix(file: Path) -> str:
    for suffix in _WRITE_SUFFIXES:
        if file.name.lower().endswith(suffix):
            return file.name[-len(suffix) :]
    raise InputError(f"{file}: this format cannot be written; the formats are {_FORMATS}")


def _check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Return [z, y, x] as (x, y, z)."""
    try:
        z, y, x = (float(size) for size in spacing)
    except (TypeError, ValueError):
        z = y = x = 0.0
    if isinstance(spacing, str) or not all(0 < size < float("inf") for size in (z, y, x)):
        raise InputError(f"--spacing {spacing}: three positive numbers are needed, such as --spacing '[0.5,0.1,0.1]'")
    return x, y, z


def _with_voxel_size(affine: np.ndarray, sizes: tuple[float, float, float]) -> np.ndarray:
    """Return the affine with the same directions and origin and another voxel size (x, y, z)."""
    directions, lengths = affine[:3, :3], np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        return np.diag([*sizes, 1.0])
    result = affine.copy()
    result[:3, :3] = directions / lengths * sizes
    return result


def _check_layout(shape: tuple[int, ...], dtype: np.dtype, file: Path) -> None:
    """Raise InputError when sizes (x, y, z) and type are not those of a volume to work with."""
    if dtype.kind not in "uif":
        raise InputError(f"{file}: has voxels of type {dtype}; save it as greyscale integers or floats")
    if shape[2] < 2 or 0 in shape:
        raise InputError(f"{file}: has {shape[2]} slice; at least 2 are needed")


def _check_voxels(array: np.ndarray, file: Path) -> np.ndarray:
    """Return the voxels (x, y, z) as float32, or raise InputError when they are no volume to work with."""
    _check_layout(array.shape, array.dtype, file)
    if array.dtype.kind in "ui" and array.dtype.itemsize > 2:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > _LARGEST_EXACT_INTEGER:
            raise InputError(f"{file}: has values up to {largest}, too large for exact work; save it with 16 bits")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, which is refused below
        voxels = np.array(array, dtype=np.float32, order="C")
    low, high = voxels.min(), voxels.max()  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(voxels.size - np.isfinite(voxels).sum())
        raise InputError(f"{file}: has {count} voxels that are NaN, infinite or beyond float32; replace them first")
    if low == high:
        raise InputError(f"{file}: all voxels have the same value {low:g}; is it the right file?")
    return voxels


def _to_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return the array in a dtype that can be stored; integers are rounded and clipped."""
    target = stored_dtype(dtype)
    if array.dtype == target:
        return array
    if target.kind not in "ui":
        return array.astype(target)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ValueError(f"the volume has NaN or infinite values, which {target} cannot hold")
        # float32 cannot hold the limits of 32-bit integers
        array = np.rint(array, dtype=np.float64 if target.itemsize > 2 else None)
    limits = np.iinfo(target)
    return np.clip(array, limits.min, limits.max).astype(target)
