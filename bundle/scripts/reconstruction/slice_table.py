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

from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.outputs import check_no_input
from scripts.volumes.paths import check_place
from scripts.volumes.whole_file import whole_file

COLUMNS = ("input_slice", "output_position", "nearest_output_slice", "copied")


def check_slice_table(
    path: str | os.PathLike | None, overwrite: bool = False, inputs: Sequence[str | os.PathLike | None] = ()
) -> None:
    """
    Check that the table can be written, before the work.

    Args:
        path: of the table; None where none is wanted.
        overwrite: whether an existing file may be replaced.
        inputs: what the run reads or writes besides, which is never replaced by the table.

    Raises:
        InputError: the file exists, is one of the inputs, or cannot be written.
    """
    if path is None:
        return
    check_no_input(path, inputs)
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{path}: exists already; give --slice_table another name, or --overwrite true to replace it")
    check_place(path)


def write_slice_table(path: str | os.PathLike, slices: int, factor: float, copied: bool) -> None:
    """
    Write a CSV file with a line for each input slice: its position in the output in units of output slices, which is no
    whole number where none lies at its place, the nearest output slice, and whether that is a copy of it.

    Args:
        path: file to write.
        slices: of the input.
        factor: how many times finer Z became.
        copied: whether the output has copies of the input slices where there is an output slice at their place.

    Raises:
        InputError: the file cannot be written.
    """
    size = lattice.output_size(slices, factor)
    kept = set(lattice.kept_indices(slices, factor))
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(slices):
            position = number * factor
            nearest = min(round(position), size - 1)
            exact = nearest in kept and abs(position - nearest) < 1e-6 * max(1.0, position)
            writer.writerow([number, f"{position:.10g}", nearest, "yes" if exact and copied else "no"])
