# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of volumes: one module per format, and here what they have in common."""

from __future__ import annotations

import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from scripts.command_line import true_or_false
from scripts.errors import InputError, one_line
from scripts.io import nifti, slice_folder, tiff
from scripts.io.axes import check_axes
from scripts.io.block_writer import BlockWriter
from scripts.io.claim import Claim, there_at_start
from scripts.io.slice_faults import SliceFaults
from scripts.io.whole_file import as_path, check_place, nearest_folder, suffix_of, target_of, whole_file
from scripts.memory import check_memory, gib
from scripts.warn_once import warn_once

# a longer suffix comes before the one that it ends in
_WRITE_SUFFIXES = (".ome.tiff", ".ome.tif", *tiff.SUFFIXES, ".nii.gz", ".nii")
_FORMATS = "TIFF (.tif, .tiff, .ome.tif, .ome.tiff) and NIfTI (.nii, .nii.gz)"
# dtypes that the formats lack or that only some programs read, and what holds the same values
_STORED_AS = {"int64": "int32", "uint64": "uint32", "float16": "float32"}
_LARGEST_EXACT_INTEGER = 2**24  # of float32
_BYTES_OF_A_SLICE = 512  # of main memory, for what is known of an output slice beside its voxels


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


class VolumeSource:
    """A volume that is open for reading, a slice at a time; made by :func:`open_volume`.

    Attributes:
        header: what is known of it.
    """

    def __init__(self, file: Path, header: Header, read: Callable[[int], np.ndarray]) -> None:
        self.header = header
        self._file = file
        self._read = read

    def read(self, index: int) -> np.ndarray:
        """
        Return slice ``index`` (x, y) in the dtype of the file, in any byte order. It may be a memory map: then only the part that
        is cut out of it is read.

        Raises:
            InputError: it is damaged, or not like the other slices.
        """
        with _cannot_be_read(self._file):
            return self._read(index)

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


@contextmanager
def open_volume(
    path: str | os.PathLike, spacing: Sequence[float] | None = None, axes: str | None = None
) -> Iterator[VolumeSource]:
    """
    Open a volume without reading its voxels.

    Args:
        path: TIFF or NIfTI file, or folder of 2-D slices (PNG or TIFF), or a pattern of the names of such slices, as
            ``folder/slice_*.png``; what exists under just that name comes first.
        spacing: voxel size [z, y, x] that replaces the one in the file, in the unit of the file, or in micrometer
            when the file names none.
        axes: what the axes of the file are in its order, in place of what it says itself: Z, Y and X, as "ZYX", and any letters for
            axes of length 1.

    Raises:
        InputError: as :func:`read_volume`, but for what only the voxels can show.
    """
    file = as_path(path)
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
        yield VolumeSource(file, Header((x, y, z), stack.dtype.newbyteorder("=").name, affine, unit), stack.read)


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


@contextmanager
def volume_writer(
    path: str | os.PathLike,
    shape: tuple[int, int, int],
    dtype: str,
    affine: np.ndarray,
    unit: str,
    overwrite: bool | str = False,
) -> Iterator[BlockWriter]:
    """
    Write a volume block by block; its name appears only at the end, and not if the work ends in an exception.

    A file that is there at the begin, or was when this process claimed it (:class:`scripts.io.claim.Claim`), is replaced:
    :func:`check_output` is what asks. TIFF keeps the voxel size of the affine alone, NIfTI the whole affine.

    Args:
        path: file, whose name decides on the format; missing folders are made.
        shape: number of voxels (x, y, z).
        dtype: of the volume; the file has that of :func:`stored_dtype`.
        affine: 4x4.
        unit: of the affine.
        overwrite: whether a file that appears in the meantime is replaced as well. If not, it is left alone, and the volume is kept
            under another name beside it.

    Yields:
        What takes the blocks. Voxels that are never written are 0.

    Raises:
        InputError: the format is not supported, the file cannot be written, or another run writes it.
    """
    file = as_path(path)
    suffix = _write_suffix(file).lower()
    target = stored_dtype(dtype)
    create: Any = nifti.create if suffix in nifti.SUFFIXES else tiff.create
    replace = true_or_false(overwrite, "overwrite")
    with Claim(file), whole_file(file, replace or there_at_start(file)) as partial, ExitStack() as removed:
        raw = partial
        if suffix.endswith(".gz"):  # only an uncompressed file can be written in any order
            raw = partial.with_suffix("")
            removed.callback(raw.unlink, missing_ok=True)
        begin = create(raw, shape, target, np.asarray(affine, dtype=float), unit)
        with open(raw, "r+b", buffering=0) as opened:
            yield BlockWriter(opened.fileno(), begin, shape, target)
        if raw != partial:
            nifti.compress(raw, partial)


def write_volume(volume: MetaTensor, path: str | os.PathLike, overwrite: bool | str = False) -> None:
    """
    Write a volume with its voxel size; the name appears only once the file is complete.

    Args:
        volume: (1, X, Y, Z) or (X, Y, Z) with ``affine`` and ``meta["unit"]``. If ``meta["dtype"]`` is there, it is
            the dtype written: for integers the values are rounded and clipped to its range.
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
    x, y, z = array.shape
    dtype, unit = str(volume.meta.get("dtype", array.dtype.name)), str(volume.meta.get("unit", "pixel"))
    with volume_writer(path, (x, y, z), dtype, np.asarray(volume.affine), unit, overwrite) as writer:
        writer.write(array)


def tell_written(path: str | os.PathLike, shape: Sequence[int], affine: np.ndarray, unit: str) -> None:
    """Print one line about a volume (x, y, z) that was written."""
    sizes = " x ".join(str(size) for size in shape)
    voxel = " x ".join(f"{size:.6g}" for size in np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0))
    print(f"wrote {path}: {sizes} voxels (x, y, z) of {voxel} {unit}")


def check_output(
    path: str | os.PathLike, overwrite: bool | str = False, inputs: Sequence[str | os.PathLike | None] = ()
) -> None:
    """
    Check, before the work, that a volume can be written.

    Args:
        path: file to be written. A symbolic link stands for the file that it points to.
        overwrite: whether an existing file may be replaced. One that appeared after this process claimed the output does not count.
        inputs: what the run reads, which is never replaced; None is passed over.

    Raises:
        InputError: the format is not supported, the file exists, is one of the inputs or no ordinary file, or its folder cannot be
            made or written to.
    """
    file = as_path(path)
    replace = true_or_false(overwrite, "overwrite")
    target = target_of(file)
    if target.is_dir():
        raise InputError(f"{file}: is a folder, but the output is one file; the formats are {_FORMATS}")
    suffix = _write_suffix(file)
    formats = [name.lower().replace("tiff", "tif") for name in (suffix, suffix_of(target.name))]
    if target.name.lower().endswith(_WRITE_SUFFIXES) and formats[0] != formats[1]:
        raise InputError(
            f"{file}: points to {target}, which has the name of another format; give a link that ends like it"
        )
    check_no_input(file, inputs)
    if there_at_start(file) and not replace:
        raise InputError(f"{file}: exists already; give another name, or --overwrite true to replace it")
    check_place(file)


def check_folder(
    folder: str | os.PathLike,
    files: Sequence[str],
    inputs: Sequence[str | os.PathLike | None] = (),
    results: Sequence[str] = (),
    unless: str = "",
    overwrite: bool | str = False,
) -> None:
    """
    Check, before the work, that files can be written to a folder.

    Args:
        folder: of the outputs.
        files: their names.
        inputs: what the run reads, which is never replaced; None is passed over.
        results: those of the files that are only replaced where the folder holds the file ``unless``, of a run that this one goes on with.
        unless: name of that file.
        overwrite: whether the results may be replaced in any case.

    Raises:
        InputError: a file is one of the inputs or no ordinary file, a result exists, or the folder cannot be made or written to.
    """
    place = as_path(folder)
    for name in files:
        check_no_input(place / name, inputs)
        if target_of(place / name).is_dir():
            raise InputError(
                f"{place / name}: is a folder, but this run writes a file of that name; give another folder"
            )
    replace = true_or_false(overwrite, "overwrite") or os.path.lexists(place / unless)
    existing = [name for name in results if os.path.lexists(place / name)]
    if existing and not replace:
        raise InputError(
            f"{place / existing[0]}: exists already, without the {unless} of a run that could go on; give another --output_dir"
        )
    check_place(place / "x")


def check_no_input(path: str | os.PathLike, inputs: Sequence[str | os.PathLike | None]) -> None:
    """
    Check that an output is none of the inputs, by whatever name or link, and does not become a slice of a folder that is one.

    Raises:
        InputError: it is.
    """
    target = target_of(path)
    for given in inputs:
        if given is None or not isinstance(given, (str, os.PathLike)):
            continue
        source = Path(os.path.realpath(given))
        if target == source or _same_file(target, source):
            raise InputError(
                f"{path}: is the same file as {given}, which this run reads and never replaces; give another output"
            )
        names = "*"
        if slice_folder.is_pattern(source):
            source, names = source.parent, source.name
        if not source.is_dir():
            continue
        if _same_file(target.parent, source) and _is_slice(target) and fnmatchcase(target.name, names):
            raise InputError(
                f"{path}: would lie among the slices of {given}, which this run reads; give another folder"
            )
        slices = (file for file in source.iterdir() if _is_slice(file) and fnmatchcase(file.name, names))
        if target.exists() and any(_same_file(target, file) for file in slices):
            raise InputError(f"{path}: is a slice of {given}, which this run reads; give another output")


def _is_slice(file: Path) -> bool:
    """Whether a file in a folder of slices counts as one, by its name."""
    return file.name.lower().endswith(slice_folder.SUFFIXES) and not file.name.startswith(".")


def _same_file(first: Path, second: Path) -> bool:
    """Whether two names are of one file, hard links as well."""
    with suppress(OSError):
        return os.path.samefile(first, second)
    return False


def check_space(path: str | os.PathLike, shape: Sequence[int], dtype: str, factor: float) -> None:
    """
    Check, before the work, that a disk has room for an output.

    Args:
        path: file to be written.
        shape: number of voxels (x, y, z).
        dtype: of the volume.
        factor: that made it so large, for the error.

    Raises:
        InputError: it has not.
    """
    needed, free = math.prod(shape) * stored_dtype(dtype).itemsize, free_space(path)
    if needed > free:
        raise InputError(
            f"--factor {factor:g}: the output would need {gib(needed)} GiB and {gib(free)} are free where {path} is to "
            "be: give a lower --factor, cut the volume, or name another place"
        )
    check_memory(
        _BYTES_OF_A_SLICE * shape[2],
        f"--factor {factor:g}: the places of {shape[2]} slices need",
        "give a lower --factor",
    )


def free_space(path: str | os.PathLike) -> int:
    """Return the bytes that are free where a file is to be written."""
    return shutil.disk_usage(nearest_folder(path)).free


def stored_dtype(dtype: str) -> np.dtype:
    """Return the type of voxel that a file of a volume of ``dtype`` gets: its own, or what holds the same values."""
    return np.dtype(_STORED_AS.get(dtype, dtype))


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
    raise InputError(f"{file}: cannot be read; the formats are {_FORMATS} and folders of PNG or TIFF slices")


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
