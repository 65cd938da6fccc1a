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

"""The finished slices of stage II on disk, so that an interrupted run goes on from them."""

from __future__ import annotations

import errno
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from scripts.errors import InputError, one_line
from scripts.provenance import difference, read_record, resolve
from scripts.volumes.json_file import write_json
from scripts.volumes.write_all import take_room, write_all

logger = logging.getLogger(__name__)

_DTYPE = np.dtype("<f2")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class SliceStore:
    """A context manager that writes slices (N, W, Z) in half precision to ``NAME.npy``, and a record of them to
    ``NAME.json``.

    The file is allocated at the beginning, and is not written through a memory map, where a full disk would kill the
    process. The record has a checksum of each finished batch.

    Args:
        folder: made if missing.
        name: of the two files.
        shape: (N, W, Z).
        batch_size: slices of a batch; the last one may have fewer.
        resume_must_match: everything that the slices depend on, see :func:`scripts.provenance.resolve`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        shape: tuple[int, int, int],
        batch_size: int,
        resume_must_match: Mapping[str, Any],
    ) -> None:
        self.data, self.record = folder / f"{name}.npy", folder / f"{name}.json"
        self.shape = shape
        self.batch_size = batch_size
        self.resume_must_match = resolve(resume_must_match)
        self.checksums: list[int | None] = [None] * math.ceil(shape[0] / batch_size)
        self._header = _header(shape)
        self._file = -1

    def __enter__(self) -> SliceStore:
        """Open the file and verify the batches that an earlier run has finished.

        Raises:
            InputError: the record is damaged or is that of another run, or there is no room.
        """
        before = read_checksums(self.record, self.resume_must_match)[: len(self.checksums)]
        begun = before != []
        size = len(self._header) + math.prod(self.shape) * _DTYPE.itemsize
        with self._tells():
            self.data.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.data, os.O_RDWR | os.O_CREAT | (0 if begun else os.O_TRUNC), 0o666)
            try:
                take_room(self._file, size)
                write_all(self._file, self._header, 0)
            except OSError:
                self.close()
                if not begun:  # a part of the room is of no use
                    self.data.unlink(missing_ok=True)
                raise
            for number, checksum in enumerate(before):
                if checksum is not None and checksum == zlib.crc32(self._read(number)):
                    self.checksums[number] = checksum
        damaged = sum(checksum is not None for checksum in before) - sum(c is not None for c in self.checksums)
        if damaged:
            logger.warning(f"{self.data}: {damaged} finished batches of slices are damaged and made anew")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def missing(self) -> list[int]:
        """Return the first slice of each batch that is missing."""
        return [number * self.batch_size for number, checksum in enumerate(self.checksums) if checksum is None]

    def keep(self, start: int, slices: np.ndarray) -> None:
        """Write a batch.

        Args:
            start: number of its first slice.
            slices: (B, W, Z).

        Raises:
            InputError: there is no room, or the file cannot be written.
        """
        content = np.ascontiguousarray(slices, dtype=_DTYPE).tobytes()
        number = start // self.batch_size
        with self._tells():
            write_all(self._file, content, self._place(number))
            os.fdatasync(self._file)  # the record must not name slices that a power failure would take away
            self.checksums[number] = zlib.crc32(content)
            self._write_record()

    def _place(self, number: int) -> int:
        return len(self._header) + number * self.batch_size * math.prod(self.shape[1:]) * _DTYPE.itemsize

    def _read(self, number: int) -> bytes:
        begin = self._place(number)
        end = min(self._place(number + 1), len(self._header) + math.prod(self.shape) * _DTYPE.itemsize)
        parts = []
        while begin < end:
            part = os.pread(self._file, end - begin, begin)
            if not part:
                break
            parts.append(part)
            begin += len(part)
        return b"".join(parts)

    def _write_record(self) -> None:
        planes = sum(
            min(self.batch_size, self.shape[0] - number * self.batch_size)
            for number, checksum in enumerate(self.checksums)
            if checksum is not None
        )
        write_json(
            self.record, {"planes": planes, "checksums": self.checksums, "resume_must_match": self.resume_must_match}
        )

    @contextmanager
    def _tells(self) -> Iterator[None]:
        """Turn an operating system error into an InputError that names the file and says what to do."""
        try:
            yield
        except (OSError, InputError) as error:
            reason = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(reason, OSError):
                raise
            if reason.errno in _NO_ROOM:
                raise InputError(
                    f"{self.data}: no space left on device; make room and run the same command again to go on"
                ) from error
            raise InputError(
                f"{self.data}: cannot be written ({reason.strerror or one_line(reason)}); "
                "choose a folder you may write to"
            ) from error


def read_slices(folder: Path, name: str, slices: slice, rows: slice) -> np.ndarray:
    """Read a part of what a :class:`SliceStore` has written; not through a map, whose pages count as memory of the
    process.

    Args:
        folder, name: of the store.
        slices, rows: ranges along N and W, with their ends.

    Returns:
        (N, W, Z), half precision.
    """
    file = folder / f"{name}.npy"
    stored = np.load(file, mmap_mode="r")
    _, width, depth = stored.shape
    size = (rows.stop - rows.start) * depth
    begins = ((number * width + rows.start) * depth for number in range(slices.start, slices.stop))
    parts = [np.fromfile(file, _DTYPE, size, offset=stored.offset + begin * _DTYPE.itemsize) for begin in begins]
    return np.stack(parts).reshape(len(parts), -1, depth)


def read_checksums(record: Path, resume_must_match: Mapping[str, Any]) -> list[int | None]:
    """Return the checksums of the batches from the record of a :class:`SliceStore`, None for a missing batch.

    Raises:
        InputError: the record is damaged, or is that of another run.
    """
    advice = "delete it to restore these slices anew"
    if not record.exists():
        return []
    document = read_record(record, advice)
    checksums, stored = document.get("checksums"), document.get("resume_must_match")
    if not isinstance(stored, Mapping) and "planes" in document and "run" in document:
        raise InputError(
            f"{record.parent} holds slices of an earlier version, "
            "which did not record what they were made of: delete it"
        )
    if not isinstance(checksums, list) or not isinstance(stored, Mapping):
        raise InputError(
            f"{record}: damaged (it has no "
            f"{'resume_must_match' if isinstance(checksums, list) else 'checksums'}); {advice}"
        )
    other = difference(stored, resume_must_match)
    if other is not None:
        go_on = f"give {other.same} to go on, or " if other.same else ""
        raise InputError(f"{record.parent} holds slices of a run {other.run}: {go_on}delete that folder to begin anew")
    return [checksum if isinstance(checksum, int) else None for checksum in checksums]


def _header(shape: tuple[int, int, int]) -> bytes:
    """Return the header of an .npy file of this shape."""
    buffer = io.BytesIO()
    description: dict[str, Any] = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
