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

"""An unfinished OME-Zarr output: a store under a temporary name and a ledger of its content, so that an interrupted run
can be continued.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scripts.errors import InputError, one_line
from scripts.lattice import Box, boxes
from scripts.provenance import difference, read_record, resolve
from scripts.volumes.formats.ome_zarr_writer import Layout, OmeZarrStore, block_of
from scripts.volumes.json_file import write_json
from scripts.volumes.partial_names import digest_of
from scripts.volumes.paths import cannot_be_written, target_of
from scripts.volumes.whole_file import move_whole
from tqdm import tqdm

_ADVICE = "delete that folder, or add --overwrite true, to begin anew"
_MAKERS = 8  # threads that make boxes of the pyramid at the end
_READERS = 8  # threads that compare what is finished with the ledger


class UnfinishedStore:
    """
    An unfinished OME-Zarr output.

    Beside the output there is a folder with a hidden name: ``run.json`` says what the run is, ``store`` becomes the
    output, and ``boxes`` has a small file for each box of the volume that is in the store, with the digests of its
    files and of ``run.json``. The output appears under its name once it is complete with its pyramid.

    Args:
        path: of the output.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4.
        unit: of the affine.
        layout: of the store.
        block: voxels (z, y, x) of a box, whole shards; None for a shard.

    Raises:
        InputError: a block does not hold whole shards.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        affine: np.ndarray,
        unit: str,
        layout: Layout,
        block: tuple[int, int, int] | None = None,
    ) -> None:
        self.path = path
        self.folder = folder_of(path)
        self.store = OmeZarrStore(self.folder / "store", shape, dtype, affine, unit, layout)
        self.block = block_of(block, layout, shape)
        self._record = self.folder / "run.json"
        self._ledger = self.folder / "boxes"
        self._fingerprint = ""
        self._made: list[set[Box]] = [set() for _ in self.store.shapes]
        self._claimed: set[tuple[int, Box]] = set()
        self._guard = threading.Lock()

    def recorded(self, name: str) -> Any:
        """What an interrupted run was made with, by its name in ``resume_must_match``; None where there is none."""
        return read_record(self._record, _ADVICE).get(name)

    def begin(self, resume_must_match: Mapping[str, Any], anew: bool = False) -> None:
        """
        Begin, or continue an interrupted run: boxes that have changed since they were written are deleted.

        Args:
            resume_must_match: what the voxels depend on, see :func:`scripts.provenance.resolve`.
            anew: whether the unfinished store of another run may be deleted.

        Raises:
            InputError: the unfinished store is from another run, or damaged, and ``anew`` is not set; or nothing can be
                written.
        """
        with self._errors():
            if self._record.exists():
                try:
                    stored = read_record(self._record, _ADVICE)
                    other = difference(stored, resume_must_match)
                    if other is not None:
                        raise InputError(
                            f"{self.path}: {self.folder} holds what a run {other.run} has finished of it; give "
                            f"{other.same or 'another output'} to go on, or {_ADVICE}"
                        )
                except InputError:
                    if not anew:
                        raise
                    shutil.rmtree(self.folder)
            elif self.folder.exists():  # killed before there was anything
                shutil.rmtree(self.folder)
            if not self._record.exists():
                self._ledger.mkdir(parents=True)
                write_json(self._record, resolve(resume_must_match))
            self._fingerprint = _digest(self._record)
            self.store.create()
        self._made = [self._find_finished(level) for level in range(len(self.store.shapes))]

    def boxes(self, level: int = 0) -> list[Box]:
        """The parts of a level that are made one at a time."""
        if level:
            return self.store.boxes(level)
        z, y, x = self.store.shapes[0]
        return boxes((x, y, z), (self.block[2], self.block[1], self.block[0]))

    def finished(self, level: int = 0) -> set[Box]:
        """The boxes of a level that are in the store."""
        with self._guard:
            return set(self._made[level])

    def remember(self, values: Mapping[str, Any]) -> None:
        """
        Keep what was measured of the input, such as its intensity scale, or compare it with what is kept.

        Raises:
            InputError: an earlier part of the run measured something else.
        """
        file = self.folder / "measured.json"
        with self._errors():
            if not file.exists():
                write_json(file, resolve(values))
            other = difference(read_record(file, f"delete {self.folder} to begin anew"), values)
            if other is not None:
                raise InputError(f"{self.path}: was begun {other.run}; delete {self.folder} to begin anew")

    def write(self, box: Box, voxels: np.ndarray) -> None:
        """Write the voxels (x, y, z) of a box of the store, enter it in the ledger, and make the parts of the pyramid
        that it completes. Several threads may do so at once.
        """
        above = self._above(box, 0)
        halves = {part: self.store.halve(part, box, voxels) for part, below in above if below == [box]}
        self._make(box, 0, lambda: self.store.write(box, voxels))
        self._go_up(box, 0, halves)

    def complete(self, replace: bool) -> None:
        """
        Make the pyramid, and move the store to the name of the output.

        Args:
            replace: see :func:`scripts.volumes.whole_file.move_whole`.
        """
        for level in range(1, len(self.store.shapes)):
            left = [box for box in self.boxes(level) if box not in self._made[level]]
            with ThreadPoolExecutor(_MAKERS) as pool:
                made = pool.map(lambda box, level=level: self._reduce(box, level), left)  # type: ignore[misc]
                for _ in tqdm(made, f"pyramid, level {level}", len(left), leave=False, unit="block", disable=not left):
                    pass
        with self._errors():
            move_whole(self.store.path, self.path, replace)
            shutil.rmtree(self.folder)

    def _find_finished(self, level: int) -> set[Box]:
        """The boxes of a level that are in the store as they were written; remains of others are deleted."""
        with self._errors(), ThreadPoolExecutor(_READERS) as pool:
            every = self.boxes(level)
            entries = [box for box in every if self._entry(box, level).exists()]
            intact = tqdm(
                pool.map(lambda box: self._is_intact(box, level), entries),
                "comparing what is finished",
                len(entries),
                leave=False,
                unit="block",
                disable=not entries,
            )
            found = {box for box, whole in zip(entries, intact, strict=True) if whole}
            for box in every:
                if box not in found:
                    self._entry(box, level).unlink(missing_ok=True)
                    for file in self.store.files(box, level):
                        file.unlink(missing_ok=True)
            return found

    def _go_up(self, box: Box, level: int, halves: Mapping[Box, Any]) -> None:
        """Make the boxes of the next level of which this one was the last part; ``halves`` of some are at hand."""
        for above, below in self._above(box, level):
            place = (level + 1, above)
            with self._guard:
                ready = (
                    above not in self._made[level + 1]
                    and place not in self._claimed
                    and all(part in self._made[level] for part in below)
                )
                if ready:
                    self._claimed.add(place)
            if ready:
                self._reduce(above, level + 1, halves.get(above))
                self._go_up(above, level + 1, {})

    def _above(self, box: Box, level: int) -> list[tuple[Box, list[Box]]]:
        """The boxes of the next level that have a part of this one, each with all boxes that it is made of."""
        if level + 1 == len(self.store.shapes):
            return []
        sides = [(begin // 2, -(-end // 2)) for begin, end in box]
        return [
            (above, self._overlapping(level, [(2 * begin, 2 * end) for begin, end in above]))
            for above in self._overlapping(level + 1, sides)
        ]

    def _overlapping(self, level: int, sides: Sequence[tuple[int, int]]) -> list[Box]:
        """The boxes of a level that have a part between these indices (x, y, z)."""
        shape = self.store.shapes[level][::-1]
        sizes = (self.block if level == 0 else self.store.unit_of_writing(level))[::-1]
        along = [
            [
                (place * size, min((place + 1) * size, whole))
                for place in range(begin // size, -(-min(end, whole) // size))
            ]
            for (begin, end), size, whole in zip(sides, sizes, shape, strict=True)
        ]
        return [Box(x, y, z) for z in along[2] for y in along[1] for x in along[0]]

    def _reduce(self, box: Box, level: int, half: Any = None) -> None:
        self._make(box, level, lambda: self.store.reduce(level, box, half))

    def _make(self, box: Box, level: int, make: Callable[[], None]) -> None:
        with self._errors():
            make()
            write_json(self._entry(box, level), self._state(box, level))
        with self._guard:
            self._made[level].add(box)

    def _state(self, box: Box, level: int) -> dict[str, Any]:
        """What the ledger says of a box: the run, and the digests of its files."""
        files = self.store.files(box, level)
        digests = {file.relative_to(self.store.path).as_posix(): _digest(file) for file in files}
        return {"run": self._fingerprint, "files": digests}

    def _entry(self, box: Box, level: int) -> Path:
        return self._ledger / f"{level}_{box.z[0]}_{box.y[0]}_{box.x[0]}.json"

    def _is_intact(self, box: Box, level: int) -> bool:
        """Whether the files of a box are those that this run wrote."""
        try:
            entry = json.loads(self._entry(box, level).read_text(encoding="utf-8"))
            return bool(entry == self._state(box, level))
        except (OSError, ValueError):  # a damaged entry, or a file that cannot be read
            return False

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the output in what goes wrong; what is finished stays."""
        try:
            yield
        except InputError:  # says by itself what is wrong, and is a ValueError
            raise
        except OSError as error:
            raise cannot_be_written(self.path, error) from error
        except ValueError as error:  # tensorstore has no other for what the operating system says
            for number in errno.errorcode:
                if os.strerror(number) in str(error):
                    raise cannot_be_written(self.path, OSError(number, os.strerror(number))) from error
            raise InputError(
                f"{self.path}: cannot be written ({one_line(error)}); run the same command again"
            ) from error


def folder_of(path: str | os.PathLike) -> Path:
    """Folder in which the store of an output is made."""
    target = target_of(path)
    return target.with_name(f".{digest_of(target.name)}.unfinished")


def _digest(file: Path) -> str:
    """SHA-256, which most processors have instructions for: blocks are digested beside the work of the network."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
