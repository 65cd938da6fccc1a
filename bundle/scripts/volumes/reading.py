# SPDX-License-Identifier: Apache-2.0
"""Reading of volumes: one module per format in ``formats``, and here what they have in common."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from scripts import lattice
from scripts.errors import InputError, one_line, warn_once
from scripts.volumes.axes import check_axes
from scripts.volumes.formats import nifti, slice_folder, tiff
from scripts.volumes.memory import check_memory, free_memory
from scripts.volumes.slice_cache import SliceCache
from scripts.volumes.slice_faults import SliceFaults
from scripts.volumes.whole_file import as_path
from scripts.volumes.writing import FORMATS

_LARGEST_EXACT_INTEGER = 2**24  # of float32
_MOST_CACHED = 2**32  # bytes of decoded slices


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

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size (x, y, z) in ``unit``."""
        return lattice.voxel_size(self.affine)

    @property
    def isotropic_factor(self) -> float:
        """Factor that makes the voxels isotropic, see :func:`scripts.lattice.isotropic_factor`, which raises where nothing is coarse in Z."""
        return lattice.isotropic_factor(self.voxel_size)


class VolumeSource:
    """
    A volume that is open for reading, by slices or by blocks. Any number of threads may read at the same time.

    It is a context manager; what holds it for longer, as a dataset does, closes it with :meth:`close`.

    Of a file that is mapped into memory (uncompressed TIFF and NIfTI with Z as the slowest axis) only the part that is asked for is read.
    Slices that have to be decoded are decoded whole, and blocks share them: the last ones are kept, in up to an eighth of the
    memory that is free when the volume is opened, 4 GiB at most. Blocks are therefore best read one range of Z after the other.

    Args:
        path: TIFF or NIfTI file, or folder of 2-D slices (PNG or TIFF), or a pattern of the names of such slices, as
            ``folder/slice_*.png``; what exists under just that name comes first.
        spacing: voxel size [z, y, x] that replaces the one in the file, in the unit of the file, or in micrometer
            when the file names none.
        axes: what the axes of the file are in its order, in place of what it says itself: Z, Y and X, as "ZYX", and any letters for
            axes of length 1.

    Attributes:
        header: what is known of it.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels can show.
    """

    def __init__(
        self, path: str | os.PathLike, spacing: Sequence[float] | None = None, axes: str | None = None
    ) -> None:
        self._file = file = as_path(path)
        new_sizes = None if spacing is None else _check_spacing(spacing)
        order = check_axes(axes)
        with ExitStack() as opened:
            with _cannot_be_read(file):
                stack = opened.enter_context(_format_of(file).open_stack(file, order))
            x, y, z = (int(size) for size in stack.shape)
            _check_layout((x, y, z), stack.dtype, file)
            if stack.doubt is not None and new_sizes is None:
                warn_once(f"{file}: {stack.doubt}; give --spacing")
            affine, unit = _grid(stack.affine, stack.unit, new_sizes, file)
            self.header = Header((x, y, z), stack.dtype.newbyteorder("=").name, affine, unit)
            if stack.decoded:
                cache = SliceCache(stack.read, min(free_memory() // 8, _MOST_CACHED))
                opened.callback(cache.clear)
                self._read, self._read_for_block = cache.read, cache.keep
            else:
                self._read = self._read_for_block = stack.read
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file; a second time is without effect."""
        self._opened.close()

    def __enter__(self) -> VolumeSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, index: int) -> np.ndarray:
        """
        Return slice ``index`` (x, y) in the dtype of the file, in any byte order. It may be a memory map: then only the part that
        is cut out of it is read.

        Raises:
            InputError: it is damaged, or not like the other slices.
        """
        with _cannot_be_read(self._file):
            return self._read(index)

    def read_block(self, x: slice, y: slice, z: Sequence[int]) -> np.ndarray:
        """
        Return a block of voxels, and read as little for it as the format allows.

        Args:
            x: part along X, in voxels.
            y: part along Y.
            z: indices of slices, in any order and also several times, as where a window reaches over the end of the volume.

        Returns:
            (X, Y, len(z)) in the dtype of the header, X fastest in memory, as in the files.

        Raises:
            IndexError: there is no such slice.
            InputError: a slice is damaged, or not like the others.
        """
        width, height, depth = self.header.shape
        if not all(0 <= index < depth for index in z):
            raise IndexError(f"the volume has slices 0 to {depth - 1}, not all of {list(z)}")
        places: dict[int, list[int]] = {}
        for place, index in enumerate(z):
            places.setdefault(index, []).append(place)
        shape = len(range(width)[x]), len(range(height)[y]), len(z)
        block = np.empty(shape, self.header.dtype, order="F")
        with _cannot_be_read(self._file):
            for index, same in places.items():
                part = self._read_for_block(index)[x, y]
                for place in same:
                    block[:, :, place] = part
        return block

    def checked_slices(self, warn: Callable[[str], None] = warn_once) -> Iterator[np.ndarray]:
        """
        Read the volume once from its first to its last slice.

        Args:
            warn: takes a line about each kind of slices that look wrong: black, saturated or repeated.

        Yields:
            The slices (x, y) as float32.

        Raises:
            InputError: as :func:`read_volume`; what is wrong with the voxels is said after the last slice.
        """
        largest, bad, low, high = 0, 0, math.inf, -math.inf
        faults = SliceFaults()
        for index in range(self.header.shape[2]):
            stored = self.read(index)
            if stored.dtype.kind in "ui" and stored.dtype.itemsize > 2:
                largest = max(largest, abs(int(stored.min())), abs(int(stored.max())))
            with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, which is refused below
                voxels = np.array(stored, dtype=np.float32, order="C")
            first, last = float(voxels.min()), float(voxels.max())  # NaN comes through both
            if math.isfinite(first) and math.isfinite(last):
                low, high = min(low, first), max(high, last)
                faults.look_at(index, stored, first, last)
            else:
                bad += int(voxels.size - np.isfinite(voxels).sum())
            del stored
            yield voxels
        if largest > _LARGEST_EXACT_INTEGER:
            raise InputError(
                f"{self._file}: has values up to {largest}, too large for exact work; save it with 16 bits"
            )
        if bad:
            raise InputError(
                f"{self._file}: has {bad} voxels that are NaN, infinite or beyond float32; replace them first"
            )
        if low == high:
            raise InputError(f"{self._file}: all voxels have the same value {low:g}; is it the right file?")
        for sentence in faults.sentences(high):
            warn(f"{self._file}: {sentence}")


def open_volume(
    path: str | os.PathLike, spacing: Sequence[float] | None = None, axes: str | None = None
) -> VolumeSource:
    """
    Open a volume without reading its voxels, as a context manager or until it is closed.

    Args:
        path, spacing, axes: as in :class:`VolumeSource`.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels can show.
    """
    return VolumeSource(path, spacing, axes)


def read_header(path: str | os.PathLike, spacing: Sequence[float] | None = None, axes: str | None = None) -> Header:
    """
    Read sizes, type and voxel size of a volume, and nothing else.

    Args:
        path, spacing, axes: as in :func:`open_volume`.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels can show.
    """
    with open_volume(path, spacing, axes) as source:
        return source.header


def read_volume(path: str | os.PathLike, spacing: Sequence[float] | None = None, axes: str | None = None) -> MetaTensor:
    """
    Read a volume from a TIFF or NIfTI file or from a folder of 2-D slices (PNG or TIFF).

    Args:
        path, spacing, axes: as in :func:`open_volume`.

    Returns:
        Volume (1, X, Y, Z), float32, with the values of the file; ``affine`` with the voxel size;
        ``meta["unit"]`` of the affine: "nanometer", "micrometer", "millimeter", or "pixel" with voxels of size 1 when
        nothing is known; ``meta["dtype"]`` of the file; ``meta["filename_or_obj"]``.

    Raises:
        InputError: the file is missing, damaged or of another format; it is no single-channel volume of at least two
            slices; its axes or the order of its slices are in doubt; its voxels are not finite, all the same, not numbers, or too
            large for float32; the spacing is not three positive numbers.
    """
    with open_volume(path, spacing, axes) as source:
        header = source.header
        check_memory(4 * math.prod(header.shape), f"{path}: needs", "free some, or cut the volume")
        voxels = np.empty((1, *header.shape), np.float32)
        for index, plane in enumerate(source.checked_slices()):
            voxels[0, :, :, index] = plane
    meta = {"unit": header.unit, "dtype": header.dtype, "filename_or_obj": str(path)}
    return MetaTensor(torch.from_numpy(voxels), affine=torch.as_tensor(header.affine, dtype=torch.float64), meta=meta)


def check_volume(
    path: str | os.PathLike,
    spacing: Sequence[float] | None = None,
    axes: str | None = None,
    warn: Callable[[str], None] = warn_once,
) -> tuple[float, float]:
    """
    Read a volume to its last voxel and keep nothing of it, before work that must not begin on a file that is bad.

    Args:
        path, spacing, axes: as in :func:`open_volume`.
        warn: as in :meth:`VolumeSource.checked_slices`.

    Returns:
        The smallest and the largest value.

    Raises:
        InputError: as :func:`read_volume`.
    """
    with open_volume(path, spacing, axes) as source:
        ranges = [(float(plane.min()), float(plane.max())) for plane in source.checked_slices(warn)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _format_of(file: Path) -> Any:
    """Return the module for the format of a file, a folder, or a pattern of slices in a folder."""
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if slice_folder.is_pattern(file):
            return slice_folder
        raise InputError(f"{file}: no such file or folder") from None
    except (OSError, ValueError) as error:  # a name that is too long, a loop of links, a folder that may not be entered
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for, a device has no end
        kinds = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket"}
        raise InputError(
            f"{file}: is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file; save the volume as a file"
        )
    if not os.access(file, os.R_OK):
        raise InputError(f"{file}: may not be read; change its permissions")
    if stat.S_ISDIR(mode):
        return slice_folder
    if file.name.lower().endswith(tiff.SUFFIXES):
        return tiff
    if file.name.lower().endswith(nifti.SUFFIXES):
        return nifti
    raise InputError(f"{file}: cannot be read; the formats are {FORMATS} and folders of PNG or TIFF slices")


@contextmanager
def _cannot_be_read(file: Path) -> Iterator[None]:
    """Name the file in what is raised about it."""
    try:
        yield
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
