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

"""Reading of volumes of any format: whole, by slices, or by blocks."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys
from scripts.errors import InputError, one_line, warn_once
from scripts.lattice import Turn, sample_boxes
from scripts.volumes.axes import check_selection
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.registry import format_to_read
from scripts.volumes.formats.slice_folder import is_pattern
from scripts.volumes.formats.stores import url_of
from scripts.volumes.header import Header, check_spacing, header_of
from scripts.volumes.memory import check_memory, free_memory
from scripts.volumes.paths import as_path, stamp
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.slice_cache import SlabCache, SliceCache
from scripts.volumes.slice_faults import SliceFaults, SliceLook, look_at
from scripts.volumes.threads import in_threads

_LARGEST_EXACT_INTEGER = 2**24  # of float32
_MOST_CACHED = 2**32  # bytes of decoded slices
_LARGE = 2**33  # voxels
_MOST_IN_SLAB = 2**28  # bytes


class VolumeSource:
    """
    An open volume, read by slices or by blocks, from any number of threads.

    It is a context manager; an object that holds it longer, such as a dataset, calls :meth:`close`.

    An uncompressed file with Z as its slowest axis is memory-mapped, and only the block that is asked for is read.
    Otherwise a slice is decoded as a whole and cached, so that the tiles of one range of Z share it; read blocks in the
    order of Z. The cache takes up to an eighth of the memory that is free when the volume is opened, and at most 4 GiB.

    Args:
        path: TIFF or NIfTI file, or folder of 2-D slices (PNG or TIFF), or a pattern of the names of such slices, as
            ``folder/slice_*.png``; a file or folder of exactly that name comes first.
        reading: how it is read.

    Attributes:
        path: of the file or folder.
        header: what is known of it.
        chunk: sizes (x, y, z) of the chunks that it is stored in; None where it is stored in slices.

    Raises:
        InputError: as :func:`read_volume`, except for what only the voxels show.
    """

    def __init__(self, path: str | os.PathLike, reading: ReadOptions = AS_STORED) -> None:
        self.path = file = as_path(path)
        self._selection = check_selection(reading.axes, reading.dataset, reading.time, reading.channel)
        voxel_size = check_spacing(reading.spacing)
        _check_readable(file)
        with ExitStack() as opened:
            with _cannot_be_read(file):
                stack = opened.enter_context(format_to_read(file).open_stack(file, self._selection))
            self.header = header_of(stack, voxel_size, file, reading.axis)
            if reading.axis != "z":
                stack = _turned(stack, Turn.of(reading.axis), file)
            self.chunk = stack.chunk
            self._parts = stack.parts
            self._read = self._read_for_block = stack.read
            self._read_box = stack.read_box
            if stack.read_box is not None and stack.chunk is not None:
                self._read = SlabCache(stack.read_box, self.header.shape, stack.chunk[2]).read
            elif stack.decoded:
                cache = SliceCache(stack.read, min(free_memory() // 8, _MOST_CACHED))
                opened.callback(cache.clear)
                self._read, self._read_for_block = cache.read, cache.keep
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file; a second time is without effect."""
        self._opened.close()

    def __enter__(self) -> VolumeSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def fingerprint(self) -> tuple:
        """A value that identifies the voxels while this process runs, without reading them."""
        return str(self.path.absolute()), self._selection, self.header.axis, stamp(self.path, self._parts)

    def read(self, index: int) -> np.ndarray:
        """
        Return slice ``index`` (x, y) in the dtype of the file, in any byte order, without caching it. It may be a
        memory map, of which only the part that is used is read.

        Raises:
            InputError: it is damaged, or not like the other slices.
        """
        with _cannot_be_read(self.path):
            return self._read(index)

    def read_block(self, x: slice, y: slice, z: Sequence[int]) -> np.ndarray:
        """
        Return a block of voxels, reading as little as the format allows.

        Args:
            x, y: ranges of voxels.
            z: indices of slices, which may repeat, as in a window beyond the end of the volume.

        Returns:
            (X, Y, len(z)) in the dtype of the header, X fastest in memory, as in the files.

        Raises:
            IndexError: there is no such slice.
            InputError: a slice is damaged, or not like the others.
        """
        width, height, depth = self.header.shape
        if not all(0 <= index < depth for index in z):
            raise IndexError(f"the volume has slices 0 to {depth - 1}, not all of {list(z)}")
        if self._read_box is not None:
            first, last = min(z), max(z) + 1
            with _cannot_be_read(self.path):
                box = self._read_box(x, y, slice(first, last))
            wanted = [index - first for index in z]
            alike = wanted == list(range(last - first))
            return np.asarray(box if alike else box[:, :, wanted], dtype=self.header.dtype)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(z):
            places.setdefault(index, []).append(place)
        shape = len(range(width)[x]), len(range(height)[y]), len(z)
        block = np.empty(shape, self.header.dtype, order="F")
        with _cannot_be_read(self.path):
            for index, same in places.items():
                part = self._read_for_block(index)[x, y]
                for place in same:
                    block[:, :, place] = part
        return block

    def slabs(self) -> Iterator[np.ndarray]:
        """Read the volume once from its first to its last slice, without caching it.

        Yields:
            Slices that follow each other (x, y, n) in the dtype of the file, in any byte order: as many as a chunk is
            thick, some slabs ahead, or one by one where the volume is stored in slices.

        Raises:
            InputError: one is damaged.
        """
        x, y, slices = self.header.shape
        if self._read_box is None or self.chunk is None:
            for index in range(slices):
                yield self.read(index)[:, :, None]
            return
        size = x * y * np.dtype(self.header.dtype).itemsize
        thickness = max(1, min(self.chunk[2], _MOST_IN_SLAB // size))
        ranges = [range(begin, min(begin + thickness, slices)) for begin in range(0, slices, thickness)]
        whole = slice(None)
        yield from in_threads(lambda z: self.read_block(whole, whole, z), ranges, thickness * size)

    @property
    def is_large(self) -> bool:
        """Whether the volume is so large that it is not read as a whole before the work: a sample stands for it."""
        return math.prod(self.header.shape) > _LARGE

    def sample(self) -> Iterator[np.ndarray]:
        """Read boxes (x, y, z) that are spread over the volume, see :func:`scripts.lattice.sample_boxes`.

        Raises:
            InputError: one is damaged.
        """
        for box in sample_boxes(self.header.shape):
            yield self.read_block(*box.slices[:2], range(*box.z))

    def checked_slices(self, warn: Callable[[str], None] = warn_once) -> Iterator[np.ndarray]:
        """
        Read the volume once from its first to its last slice.

        Args:
            warn: called with a line about each kind of suspicious slices: black, saturated or repeated.

        Yields:
            The slices (x, y) in the dtype of the file, in any byte order.

        Raises:
            InputError: as :func:`read_volume`; about the voxels after the last slice.
        """
        largest, bad, low, high = 0, 0, math.inf, -math.inf
        faults = SliceFaults()
        slices = (slab[:, :, index] for slab in self.slabs() for index in range(slab.shape[2]))
        size = math.prod(self.header.shape[:2]) * np.dtype(self.header.dtype).itemsize
        for index, facts in enumerate(in_threads(_look_at, slices, size)):
            largest, bad = max(largest, facts.largest), bad + facts.bad
            if facts.look is not None:
                low, high = min(low, facts.low), max(high, facts.high)
                faults.add(index, facts.stored.dtype.kind, facts.look)
            yield facts.stored
        if largest > _LARGEST_EXACT_INTEGER:
            raise InputError(f"{self.path}: has values up to {largest}, too large for exact work; save it with 16 bits")
        if bad:
            raise InputError(
                f"{self.path}: has {bad} voxels that are NaN, infinite or beyond float32; replace them first"
            )
        if low == high:
            raise InputError(f"{self.path}: all voxels have the same value {low:g}; is it the right file?")
        for sentence in faults.sentences(high):
            warn(f"{self.path}: {sentence}")


class _Facts(NamedTuple):
    """What is known of a slice."""

    stored: np.ndarray
    low: float
    high: float
    bad: int  # voxels that are not finite as float32
    largest: int  # magnitude, of integers of more than 16 bits
    look: SliceLook | None  # None where voxels are bad


def _look_at(stored: np.ndarray) -> _Facts:
    least, most = stored.min(), stored.max()  # NaN comes through both
    largest = bad = 0
    if stored.dtype.kind in "ui" and stored.dtype.itemsize > 2:
        largest = max(abs(int(least)), abs(int(most)))
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, which counts as bad
        low, high = float(np.float32(least)), float(np.float32(most))
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int(stored.size - np.isfinite(stored.astype(np.float32)).sum())
    return _Facts(stored, low, high, bad, largest, None if bad else look_at(stored, low, high))


def open_volume(path: str | os.PathLike, reading: ReadOptions = AS_STORED) -> VolumeSource:
    """
    Open a volume without reading its voxels, as a context manager or until it is closed.

    Args:
        path, reading: as in :class:`VolumeSource`.

    Raises:
        InputError: as :func:`read_volume`, except for what only the voxels show.
    """
    return VolumeSource(path, reading)


def read_header(path: str | os.PathLike, reading: ReadOptions = AS_STORED) -> Header:
    """
    Read the header of a volume: shape, dtype and voxel size.

    Args:
        path, reading: as in :func:`open_volume`.

    Raises:
        InputError: as :func:`read_volume`, except for what only the voxels show.
    """
    with open_volume(path, reading) as source:
        return source.header


def read_volume(path: str | os.PathLike, reading: ReadOptions = AS_STORED) -> MetaTensor:
    """
    Read a volume from a TIFF or NIfTI file or from a folder of 2-D slices (PNG or TIFF).

    Args:
        path, reading: as in :func:`open_volume`.

    Returns:
        Volume (1, X, Y, Z), float32, with the values of the file; ``affine`` with the voxel size;
        ``meta["unit"]`` of the affine: "nanometer", "micrometer", "millimeter", or "pixel" with voxels of size 1 when
        nothing is known; ``meta["dtype"]`` of the file; ``meta["axis"]`` of the file that is the last one here;
        ``meta["filename_or_obj"]``; ``meta["original_channel_dim"]``, which is 0.

    Raises:
        InputError: the file is missing, damaged or of another format; it is not a single-channel volume of at least two
            slices; its axes or the order of its slices are ambiguous; its voxels are not finite, all the same, not
            numbers, or too large for float32; the spacing is not three positive numbers.
    """
    with open_volume(path, reading) as source:
        header = source.header
        check_memory(4 * math.prod(header.shape), f"{path}: needs", "free some, or cut the volume")
        voxels = np.empty((1, *header.shape), np.float32)
        for index, plane in enumerate(source.checked_slices()):
            voxels[0, :, :, index] = plane
    meta: dict = {"unit": header.unit, "dtype": header.dtype, "axis": header.axis, "filename_or_obj": str(path)}
    meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0  # for MONAI's EnsureChannelFirst
    return MetaTensor(torch.from_numpy(voxels), affine=torch.as_tensor(header.affine, dtype=torch.float64), meta=meta)


def check_volume(
    path: str | os.PathLike, reading: ReadOptions = AS_STORED, warn: Callable[[str], None] = warn_once
) -> tuple[float, float]:
    """
    Read all voxels of a volume without keeping them, before work that must not begin on a damaged file.

    Args:
        path, reading: as in :func:`open_volume`.
        warn: as in :meth:`VolumeSource.checked_slices`.

    Returns:
        The smallest and the largest value.

    Raises:
        InputError: as :func:`read_volume`.
    """
    with open_volume(path, reading) as source:
        ranges = [(float(plane.min()), float(plane.max())) for plane in source.checked_slices(warn)]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _turned(stack: Stack, turn: Turn, file: Path) -> Stack:
    """The same volume with another axis as its last one; what is stored in slices is read into memory."""
    read_box = stack.read_box
    if read_box is None:
        check_memory(math.prod(stack.shape) * stack.dtype.itemsize, f"{file}: needs", "save it in chunks, as .zarr")
        voxels = np.stack([stack.read(index) for index in range(stack.shape[2])], axis=-1)

        def read_box(x: slice, y: slice, z: slice) -> np.ndarray:
            return voxels[x, y, z]

    def read(x: slice, y: slice, z: slice) -> np.ndarray:
        return read_box(*turn.to_file((x, y, z))).transpose(turn.order)

    chunk = stack.chunk and turn.to_volume(stack.chunk)
    whole = slice(None)
    return stack._replace(
        shape=turn.to_volume(stack.shape),
        read=lambda index: read(whole, whole, slice(index, index + 1))[:, :, 0],
        decoded=False,
        read_box=read,
        chunk=chunk,
    )


def _check_readable(file: Path) -> None:
    """Raise InputError unless this is a file or folder that may be read, a pattern of slices in a folder, or a URL."""
    if url_of(file):
        return
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if is_pattern(file):
            return
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


@contextmanager
def _cannot_be_read(file: Path) -> Iterator[None]:
    """Turn the exceptions of libraries about a file into an InputError that names it."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        raise InputError(f"{file}: cannot be read; is it complete and of that format? ({one_line(error)})") from error
