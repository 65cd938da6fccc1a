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

"""Which results of a run are finished, and whether they are still what the run wrote."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.provenance import difference, read_record, resolve
from scripts.volumes.identity import digest_of_file, files_of
from scripts.volumes.json_file import write_json
from scripts.volumes.whole_file import told_before_move

logger = logging.getLogger(__name__)


class Finished:
    """Record of finished results: size, time and digest of each, written before it appears under its name.

    Args:
        record: JSON document; results stand under "finished", and what else is in it stays.
        advice: what to do when it is damaged.
    """

    def __init__(self, record: str | Path, advice: str = "delete it") -> None:
        self.record = Path(record)
        self.advice = advice

    def knows(self, result: str | Path) -> bool:
        """Whether a file of that name was written, whatever is there now."""
        return self._entry(result) is not None

    def holds(self, result: str | Path) -> bool:
        """Whether a file is there and is the one that was written. It is read only if its size is the same and its time
        is not.

        Raises:
            InputError: the record is damaged, or the file cannot be read.
        """
        entry, path = self._entry(result), Path(result)
        if entry is None or not path.exists():
            return False
        size, modified = _size_and_time(path)
        if size != entry.get("size"):
            return False
        return modified == entry.get("modified") or digest_of_file(path) == entry.get("digest")

    def keep(self, result: str | Path, content: str | Path | None = None) -> None:
        """Record a result.

        Args:
            result: its name.
            content: where it is, if it does not have that name yet.

        Raises:
            InputError: the file cannot be read, or the record cannot be written.
        """
        file = Path(result if content is None else content)
        size, modified = _size_and_time(file)
        entry = {"size": size, "modified": modified, "digest": digest_of_file(file)}
        document = self._read()
        self.write({**document, "finished": {**_mapping(document.get("finished")), self._name(result): entry}})

    def write(self, document: Mapping[str, Any]) -> None:
        """Write the whole record."""
        write_json(self.record, document)

    @contextmanager
    def recording(self, *results: str | Path) -> Iterator[None]:
        """Record those of the results that are written while the block runs."""
        names = {self._name(result) for result in results}

        def keep(partial: Path, path: Path) -> None:
            if self._name(path) in names:
                self.keep(path, partial)

        with told_before_move(keep):
            yield

    def _entry(self, result: str | Path) -> Mapping[str, Any] | None:
        entry = _mapping(self._read().get("finished")).get(self._name(result))
        return entry if isinstance(entry, Mapping) else None

    def _read(self) -> dict[str, Any]:
        return read_record(self.record, self.advice)

    def _name(self, path: str | Path) -> str:
        """A file below the record goes with it when the folder is moved."""
        file, folder = Path(os.path.realpath(path)), Path(os.path.realpath(self.record.parent))
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


class FinishedRun(Finished):
    """Record of a run that has a single step, beside its results.

    Args:
        record: JSON document.
        resume_must_match: what the results depend on, see :func:`scripts.provenance.resolve`.
        results: files that the run writes.
    """

    def __init__(self, record: str | Path, resume_must_match: Mapping[str, Any], results: Sequence[str | Path]) -> None:
        super().__init__(record)
        self.resume_must_match = resume_must_match
        self.results = list(results)

    def is_done(self) -> bool:
        """Whether all results are there, as a run that shares ``resume_must_match`` wrote them.

        Raises:
            InputError: the record is damaged, or an input cannot be read.
        """
        if not all(self.holds(result) for result in self.results):
            return False
        stored = _mapping(self._read().get("resume_must_match"))
        return difference(stored, self.resume_must_match) is None

    def make(self, work: Callable[[], object], done: bool = False) -> None:
        """Do the work that writes the results, or say that it is done."""
        if done:
            logger.info(f"done before ({self.results[0]})")
            return
        self.write({"resume_must_match": resolve(self.resume_must_match), "finished": {}})
        with self.recording(*self.results):
            work()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of a file, or of all files of a store, and when the newest was written, in nanoseconds."""
    states = [file.stat() for file in files_of(path)]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)
