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

"""Checks before a run that its outputs can be written, fit on the disk, and are none of its inputs."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from humanize import naturalsize
from scripts.errors import InputError
from scripts.volumes.claim import there_at_start
from scripts.volumes.formats import registry, slice_folder
from scripts.volumes.memory import check_memory
from scripts.volumes.paths import as_path, check_place, nearest_folder, target_of
from scripts.volumes.writing import check_overwrite, stored_dtype

_BYTES_OF_A_SLICE = 512  # of main memory, for the position of an output slice and its place in the file


def check_output(
    path: str | os.PathLike, overwrite: bool = False, inputs: Sequence[str | os.PathLike | None] = ()
) -> None:
    """
    Check that a volume can be written, before the work.

    Args:
        path: file to be written. A symbolic link stands for the file that it points to.
        overwrite: whether an existing file may be replaced. One that appeared after this process claimed the output is
            left to the end of the writing, see :func:`scripts.volumes.writing.volume_writer`.
        inputs: what the run reads, which is never replaced; None is passed over.

    Raises:
        InputError: the format is not supported, the file exists, is an input or no regular file, or its folder cannot
            be made or written to.
    """
    check_overwrite(overwrite)
    file = as_path(path)
    target = target_of(file)
    if target.is_dir() and not registry.is_store(file):
        raise InputError(f"{file}: is a folder, but the output is one file; the formats are {registry.writable()}")
    known = registry.format_to_write(file)
    if target.exists() and registry.is_store(file) and not known.is_written(target):  # type: ignore[attr-defined]
        raise InputError(f"{file}: is no {known.NAME} and is never replaced; give another output")
    formats = [(registry.suffix_of_volume(each) or "").lower().replace("tiff", "tif") for each in (file, target)]
    if formats[1] and formats[0] != formats[1]:
        raise InputError(
            f"{file}: points to {target}, which has the name of another format; give a link that ends like it"
        )
    check_no_input(file, inputs)
    if there_at_start(file) and not overwrite:
        raise InputError(f"{file}: exists already; give another name, or --overwrite true to replace it")
    check_place(file)


def check_store_options(outputs: Sequence[str | os.PathLike], options: Mapping[str, Any]) -> None:
    """
    Refuse options that only stores have where no output is one.

    Args:
        outputs: of the run.
        options: name -> value; None where it was not given.

    Raises:
        InputError: one is given.
    """
    if any(registry.is_store(as_path(each)) for each in outputs):
        return
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name} {value}: is for an output in .zarr, and {outputs[0]} is none; leave it out, or give the "
                "output a name that ends in .zarr"
            )


def check_folder(
    folder: str | os.PathLike,
    files: Sequence[str],
    inputs: Sequence[str | os.PathLike | None] = (),
    results: Sequence[str] = (),
    unless: str = "",
    overwrite: bool = False,
) -> None:
    """
    Check that files can be written to a folder, before the work.

    Args:
        folder: of the outputs.
        files: their names.
        inputs: what the run reads, which is never replaced; None is passed over.
        results: those of the files that are results. Without ``overwrite`` they are only replaced where the run is
            continued.
        unless: name of the file that a run which can be continued leaves in the folder.
        overwrite: whether existing results may be replaced.

    Raises:
        InputError: a file is an input or no regular file, a result exists, or the folder cannot be made or written to.
    """
    place = as_path(folder)
    for name in files:
        check_no_input(place / name, inputs)
        if target_of(place / name).is_dir():
            raise InputError(
                f"{place / name}: is a folder, but this run writes a file of that name; give another folder"
            )
    replace = overwrite or os.path.lexists(place / unless)
    existing = [name for name in results if os.path.lexists(place / name)]
    if existing and not replace:
        raise InputError(
            f"{place / existing[0]}: exists already, without the {unless} of a run that could go on; "
            "give another --output_dir"
        )
    check_place(place / "x")


def check_no_input(path: str | os.PathLike, inputs: Sequence[str | os.PathLike | None]) -> None:
    """
    Check that an output is no input, by any name or link, and would not become a slice of a folder that is an input.

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
    Check that the disk has room for an output, before the work.

    Args:
        path: file to be written.
        shape: number of voxels (x, y, z).
        dtype: of the volume.
        factor: that made it so large, for the error.

    Raises:
        InputError: there is not enough, or the format has no such voxels.
    """
    needed, free = math.prod(shape) * stored_dtype(dtype, path).itemsize, free_space(path)
    if needed > free:
        raise InputError(
            f"--factor {factor:g}: the output would need {naturalsize(needed, binary=True)} and "
            f"{naturalsize(free, binary=True)} are free where {path} is to be: give a lower --factor, cut the "
            "volume, or name another place"
        )
    check_memory(
        _BYTES_OF_A_SLICE * shape[2],
        f"--factor {factor:g}: the places of {shape[2]} slices need",
        "give a lower --factor",
    )


def free_space(path: str | os.PathLike) -> int:
    """Return the bytes that are free where a file is to be written."""
    return shutil.disk_usage(nearest_folder(path)).free
