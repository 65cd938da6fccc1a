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

"""An array in chunks, which tensorstore reads: absent chunks are counted, damaged ones are named by their address."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError, one_line, warn_once
from scripts.volumes.formats.stores import kvstore_of, short
from scripts.volumes.memory import check_memory

_CACHED = 2**28  # bytes of decoded chunks, of all arrays together
_AT_ONCE = 256  # chunks that are asked for one by one
_COMPRESSED = (".gz", ".br", ".zst")  # of files that a web server would unpack


class ChunkedArray:
    """
    An open array.

    Args:
        store: of tensorstore, opened so that reading an absent chunk fails.
        path: of the volume, for messages.
        name: of the array in it, for messages.

    Attributes:
        shape, dtype: of the array; its first index is 0, wherever its domain begins.
        chunk: sizes of what is read at once, an inner chunk where chunks are kept in shards.

    Raises:
        InputError: memory does not hold a chunk.
    """

    def __init__(self, store: Any, path: Path, name: str) -> None:
        self._store, self._path, self._name = store, path, name
        self._begin = tuple(int(each) for each in store.domain.inclusive_min)
        self.shape = tuple(int(each) for each in store.shape)
        self.dtype = np.dtype(store.dtype.numpy_dtype)
        layout = store.chunk_layout.read_chunk.shape or self.shape
        self._check_memory(layout, "chunk", "chunk size")
        self.chunk = tuple(min(int(size), max(1, whole)) for size, whole in zip(layout, self.shape))
        self._grid = tuple(-(-whole // size) for size, whole in zip(self.chunk, self.shape))
        inner = store.chunk_layout.inner_order
        # as the voxels lie in the chunks, so that they are copied in runs
        self._order: Any = "F" if inner is not None and inner[0] > inner[-1] else "C"
        fill = store.fill_value
        self._fill = np.zeros((), self.dtype) if fill is None else np.asarray(fill, self.dtype)
        self._absent: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        """
        Return the voxels of a box.

        Raises:
            InputError: a chunk of it is damaged, or may not be read, or memory does not hold the box.
        """
        whole = tuple(
            range(each, each + 1) if isinstance(each, int) else range(size)[each]
            for each, size in zip(index, self.shape)
        )
        drop = tuple(0 if isinstance(each, int) else slice(None) for each in index)
        self._check_memory(map(len, whole), "part", "shape")
        try:
            return np.asarray(self._part(whole).read(order=self._order).result())[drop]
        except (ValueError, NotImplementedError):  # a chunk is absent or damaged; which one it is shows one by one
            return self._chunk_by_chunk(whole)[drop]

    def _check_memory(self, sizes: Iterable[int], what: str, number: str) -> None:
        """Raise InputError where memory does not hold a box: tensorstore would end the process."""
        needed = math.prod(map(int, sizes)) * self.dtype.itemsize
        if needed > _CACHED:
            advice = f"is its {number} right? if so, free some"
            check_memory(needed, f"{self._path}: a {what} of {self._name} needs", advice)

    def warn_of_absent(self) -> None:
        """Warn of how many of the chunks that were read are absent."""
        if self._absent:
            self._warn(f"{len(self._absent)} of its {np.prod(self._grid)} chunks are absent")

    def _warn(self, what: str) -> None:
        warn_once(f"{self._path}: {what}, and read as the fill value {self._fill}; check that the copy is complete")

    def _part(self, box: tuple[range, ...]) -> Any:
        return self._store[tuple(slice(begin + each.start, begin + each.stop) for begin, each in zip(self._begin, box))]

    def _chunk_by_chunk(self, box: tuple[range, ...]) -> np.ndarray:
        result = np.empty([len(each) for each in box], self.dtype, order=self._order)
        cells = itertools.product(
            *(range(each.start // size, -(-each.stop // size)) for each, size in zip(box, self.chunk))
        )
        while some := tuple(itertools.islice(cells, _AT_ONCE)):
            parts = [
                tuple(
                    range(max(each.start, number * size), min(each.stop, (number + 1) * size))
                    for each, number, size in zip(box, cell, self.chunk)
                )
                for cell in some
            ]
            reads = [self._part(part).read() for part in parts]
            for cell, part, read in zip(some, parts, reads):
                place = tuple(
                    slice(each.start - first.start, each.stop - first.start) for each, first in zip(part, box)
                )
                result[place] = self._read(cell, read)
        return result

    def _read(self, cell: tuple[int, ...], read: Any) -> np.ndarray:
        """The voxels of one chunk, or the fill value where it is absent."""
        address = f"chunk ({', '.join(str(number) for number in cell)}) of {self._name}"
        try:
            return read.result()
        except (ValueError, NotImplementedError) as error:
            text = one_line(error)
            file = re.search(r'"([^"]+)"', text)
            where = f"{address} ({file[1]})" if file else address
            if not text.startswith("NOT_FOUND"):
                advice = "change its permissions" if "PERMISSION" in text else "copy it again"
                raise InputError(f"{self._path}: {where} cannot be read: {short(error)}; {advice}") from error
            if file and Path(file[1]).is_dir():
                raise InputError(f"{self._path}: {where} is a folder, but a chunk is a file; copy it again") from error
            for end in _COMPRESSED:
                if file and Path(file[1] + end).exists():
                    raise InputError(
                        f"{self._path}: {where} is stored as a file that ends in {end}, for a web server to unpack; "
                        f"unpack these files first"
                    ) from error
        with self._lock:
            first = not self._absent
            self._absent.add(cell)
        if first:
            self._warn(f"{where} is absent")
        return self._fill


@contextmanager
def open_array(
    driver: str, folder: Path, path: Path, name: str, layout: dict[str, Any] | None = None, **spec: Any
) -> Iterator[ChunkedArray]:
    """
    Open an array for reading; a warning at the end says how many chunks were absent.

    Args:
        driver: of tensorstore.
        folder: that holds the metadata of the array.
        path: of the volume, for messages.
        name: of the array in it, for messages.
        layout: metadata of the array, without users' attributes, since tensorstore may refuse those that it does not
            know. With None tensorstore reads it from the folder.
        spec: further entries of the driver's specification.

    Raises:
        InputError: tensorstore cannot read such an array.
    """
    import tensorstore  # takes half a second, and TIFF does without it

    if layout is not None:
        spec = {"metadata": layout, **spec}
    try:
        store = tensorstore.open(
            {
                "driver": driver,
                "kvstore": kvstore_of(folder),
                "fill_missing_data_reads": False,
                "recheck_cached_data": "open",
                **spec,
            },
            context=_context(),
            open=True,
            assume_metadata=layout is not None,
            read=True,
        ).result()
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: {name} cannot be opened: {short(error)}; is it complete, and its compression one of the format?"
        ) from error
    array = ChunkedArray(store, path, name)
    try:
        yield array
    finally:
        array.warn_of_absent()


@cache
def _context() -> Any:
    """What all arrays of the process share: threads, and a cache of decoded chunks."""
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": _CACHED}})
