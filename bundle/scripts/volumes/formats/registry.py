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

"""The formats, found by the name of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from scripts.errors import InputError
from scripts.volumes.formats import hdf5, metaimage, mrc, n5, nifti, nrrd, precomputed, slice_folder, tiff, vendor, zarr
from scripts.volumes.formats.base import Format, ReadableFormat
from scripts.volumes.formats.stores import url_of
from tifffile import natural_sorted

# a new format is added here
_FORMATS: tuple[ReadableFormat, ...] = (tiff, nifti, hdf5, mrc, nrrd, metaimage, zarr, n5, precomputed, vendor)


def _written(kind: ReadableFormat) -> tuple[str, ...]:
    """Suffixes that a format is written with."""
    only_read = getattr(kind, "ONLY_READ", ())
    return tuple(each for each in kind.SUFFIXES if each not in only_read) if hasattr(kind, "open_writer") else ()


def _listed(formats: Iterable[tuple[ReadableFormat, tuple[str, ...]]]) -> str:
    names = [f"{kind.NAME} ({', '.join(suffixes)})" if suffixes else kind.NAME for kind, suffixes in formats]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def readable() -> str:
    """The formats of files that can be read with their suffixes, for messages."""
    return _listed((each, each.SUFFIXES) for each in _FORMATS)


def writable() -> str:
    """The formats that can be written with their suffixes, for messages."""
    return _listed((each, _written(each)) for each in _FORMATS if hasattr(each, "open_writer"))


def formats_with(dtype: str) -> str:
    """The formats that can be written with voxels of a type, with their suffixes, for messages."""
    able = (each for each in _FORMATS if hasattr(each, "open_writer"))
    return _listed((each, _written(each)) for each in able if dtype in getattr(each, "DTYPES", (dtype,)))


SUFFIXES = tuple(suffix for each in _FORMATS for suffix in each.SUFFIXES)
"""Suffixes of these files, in lower case."""


def suffix_of_volume(path: Path) -> str | None:
    """Return the suffix of a volume's name, as it is written there; None if no format has it."""
    found = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    return path.name[-len(max(found, key=len)) :] if found else None


def format_to_read(path: Path) -> ReadableFormat:
    """
    Return the format of a file, of a folder of slices, or of a pattern of slices in a folder.

    Raises:
        InputError: it has no supported format.
    """
    if path.is_dir() or url_of(path):
        store = store_format(path) or (None if url_of(path) else slice_folder)
        if store is None:
            names = ", ".join(each.NAME for each in _FORMATS if hasattr(each, "is_store"))
            raise InputError(f"{url_of(path)}: there is no volume of a format that is read from there: {names}")
        return store
    if slice_folder.is_pattern(path):
        return slice_folder
    known = _format_of(path)
    if known is None:
        raise InputError(f"{path}: cannot be read; the formats are {readable()}, and folders of PNG or TIFF slices")
    return known


def store_format(path: Path) -> ReadableFormat | None:
    """Return the format of a store, a folder or a URL; None if it is not a store."""
    return next((each for each in _FORMATS if hasattr(each, "is_store") and each.is_store(path)), None)


def volumes_of(folder: Path) -> list[Path]:
    """Return the volumes that lie in a folder, files and stores, in natural order (v2 before v10). Hidden ones, and
    folders of slices, are left out.
    """
    entries = [each for each in folder.iterdir() if not each.name.startswith(".")]
    volumes = {each.name: each for each in entries if (store_format(each) if each.is_dir() else _format_of(each))}
    return [volumes[name] for name in natural_sorted(volumes)]


def suffix_like(path: Path) -> str:
    """Return the suffix of an output in the format of a volume: the volume's own, or the first of its format where its
    own is only read; ``.zarr`` for stores; ``.tif`` where the format is not written.
    """
    stands_alone = not path.is_dir() and not url_of(path)
    known = _format_of(path) if stands_alone else store_format(path) and zarr
    suffix, written = (suffix_of_volume(path) or "").lower(), _written(known) if known else ()
    return suffix if suffix in written else next(iter(written), tiff.SUFFIXES[0])


def format_to_write(path: Path) -> Format:
    """
    Return the format that a volume of this name is written in.

    Raises:
        InputError: the name has no suffix that can be written.
    """
    known = _format_of(path)
    suffix = suffix_of_volume(path)
    if known is None or suffix is None or suffix.lower() not in _written(known):
        raise InputError(f"{path}: this format cannot be written; the formats are {writable()}")
    return cast(Format, known)


def is_store(path: Path) -> bool:
    """Whether an output of this name is a store, a folder that is written part by part, so that an interrupted run can
    continue it."""
    known = _format_of(path)
    return hasattr(known, "is_store") and hasattr(known, "open_writer")


def _format_of(path: Path) -> ReadableFormat | None:
    suffix = suffix_of_volume(path)
    return next((each for each in _FORMATS if suffix is not None and suffix.lower() in each.SUFFIXES), None)
