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

"""A table of where the recorded slices are in a reconstruction."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.outputs import check_no_input
from scripts.volumes.paths import check_place
from scripts.volumes.whole_file import whole_file

COLUMNS = ("input_slice", "output_position", "nearest_output_slice", "copied")


class SliceTable(NamedTuple):
    """
    A CSV file with a line for each input slice: its position in the output in units of output slices, which is no
    whole number where none lies at its place, the nearest output slice, and whether that is a copy of it.

    It is written before the output gets its name, so that a finished output has its table. A run that is interrupted in
    between finds it again, so a file with the same content counts as none.

    Attributes:
        path: of the file; None where none is wanted.
        slices: of the input.
        factor: how many times finer Z becomes.
        copied: whether the output has copies of the input slices where there is an output slice at their place.
    """

    path: str | os.PathLike | None
    slices: int
    factor: float
    copied: bool = True

    def check(self, overwrite: bool = False, inputs: Sequence[str | os.PathLike | None] = ()) -> None:
        """
        Check that the table can be written, before the work.

        Args:
            overwrite: whether an existing file may be replaced.
            inputs: what the run reads or writes besides, which is never replaced by the table.

        Raises:
            InputError: another file is there, it is one of the inputs, or cannot be written.
        """
        if self.path is None:
            return
        check_no_input(self.path, inputs)
        if os.path.lexists(self.path) and not overwrite and not self._is_there(self.path):
            raise InputError(
                f"{self.path}: exists already; give --slice_table another name, or --overwrite true to replace it"
            )
        check_place(self.path)

    def write(self) -> None:
        """
        Write the table, unless it is there.

        Raises:
            InputError: the file cannot be written.
        """
        if self.path is None or self._is_there(self.path):
            return
        with whole_file(self.path) as partial:
            partial.write_bytes(self._content())

    def _is_there(self, path: str | os.PathLike) -> bool:
        content, file = self._content(), Path(path)
        try:
            return file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content
        except OSError:
            return False

    def _content(self) -> bytes:
        text = StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for number, (position, nearest, coincides) in enumerate(lattice.recorded_slices(self.slices, self.factor)):
            writer.writerow([number, f"{position:.10g}", nearest, "yes" if coincides and self.copied else "no"])
        return text.getvalue().encode()
