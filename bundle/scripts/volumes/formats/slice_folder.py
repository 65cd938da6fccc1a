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

"""A folder of 2-D slices, one PNG or TIFF file each, or those of its files that a pattern matches."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from PIL import Image
from scripts.errors import InputError, one_line, warn_once
from scripts.volumes.axes import NO_SELECTION, Selection, order_of
from scripts.volumes.formats import tiff
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.slice_order import differ_in_numbers, slices_in_order

NAME = "folder of slices"
SUFFIXES: tuple[str, ...] = (".png", ".tif", ".tiff")  # of the slices
_OTHER_IMAGES = (".jpg", ".jpeg", ".bmp", ".gif", ".jp2", ".webp")
_GRAYSCALE_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F")


def is_pattern(path: Path) -> bool:
    """Whether the name of a path is a pattern in an existing folder; a file of exactly that name takes precedence."""
    return any(character in path.name for character in "*?[") and not path.exists() and path.parent.is_dir()


@contextmanager
def open_stack(path: Path, selection: Selection = NO_SELECTION) -> Iterator[Stack]:
    """
    Open the slices of a folder in the order of their numbers (slice2 before slice10). Hidden and other files are
    ignored.

    Args:
        path: the folder, or a pattern of the names of files in it.
        selection: which volume to read; Z comes first among its axes, one file a slice.

    Yields:
        The stack, of the size and dtype of the first slice, without a voxel size. Reading a slice that differs from the
        first raises InputError.

    Raises:
        InputError: there are no slices, their names do not tell which belong to the volume or in which order, or the
            first cannot be read.
    """
    files = slice_files(path)
    first = _read_slice(files[0])
    shape = (len(files), *first.shape)
    turned = False
    selection.refuse_dataset(path, "a folder of slices")
    if selection != NO_SELECTION:
        order = order_of("ZYX", shape, selection, path)
        if order.letters[0] != "Z":
            raise InputError(
                f"--axes {selection.axes}: {path} holds one file for each slice, so that Z comes first: ZYX or ZXY"
            )
        turned = order.letters == "ZXY"

    def read(index: int) -> np.ndarray:
        pixels = _read_slice(files[index])
        if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{files[index]}: is {_describe(pixels)}, but {files[0].name} is {_describe(first)}; make all alike"
            )
        return pixels if turned else pixels.transpose()

    plane = first.shape if turned else first.shape[::-1]
    yield Stack((*plane, len(files)), first.dtype, None, None, read, decoded=True)


def slice_files(path: Path) -> list[Path]:
    """
    Return the files of the slices in their order.

    Args:
        path: the folder, or a pattern of the names of files in it.

    Raises:
        InputError: there are none, or their names are ambiguous.
    """
    folder, pattern = (path, None) if path.is_dir() else (path.parent, path.name)
    every = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    names = [name for name in every if pattern is None or fnmatchcase(name, pattern)]
    slices = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not slices and pattern is not None:
        raise InputError(f"{path}: no such file or folder, and no PNG or TIFF file in {folder} has such a name")
    if not slices:
        raise InputError(f"{path}: is a folder without slices; it must hold 2-D images ending in {', '.join(SUFFIXES)}")
    if len({name.lower().endswith(".png") for name in slices}) > 1:
        raise InputError(
            f"{path}: holds both PNG and TIFF files ({_one_of_each(slices)}); leave the slices of one volume "
            f"alone in the folder, or give '{folder / '*.png'}' in place of it"
        )
    in_order, remark = slices_in_order(slices, folder, pattern)
    _check_no_other_slices(names, in_order, path)
    if remark:
        warn_once(remark)
    return [folder / name for name in in_order]


def _check_no_other_slices(names: Sequence[str], slices: Sequence[str], path: Path) -> None:
    """Raise InputError where an image of another format is numbered like a slice but is not one of them."""
    stems = {Path(name).stem for name in slices}
    for name in sorted(names):
        if name.lower().endswith(_OTHER_IMAGES) and Path(name).stem not in stems and differ_in_numbers(name, slices[0]):
            raise InputError(f"{path}: {name} is named like a slice, but is no PNG or TIFF; convert it or move it away")


def _read_slice(file: Path) -> np.ndarray:
    """Return the pixels of one file in (y, x) order."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
            raise InputError(f"{file}: is no regular file, but a slice must be one; move it away")
        if file.suffix.lower() != ".png":
            return tiff.read_slice(file)
        with Image.open(file) as image:
            if image.format != "PNG":
                raise InputError(f"{file}: is a {image.format} file in spite of its name; convert it to PNG")
            frames = int(getattr(image, "n_frames", 1))
            if frames > 1:
                raise InputError(f"{file}: holds {frames} frames, but each file in a folder must be one 2-D slice")
            if image.mode not in _GRAYSCALE_MODES:
                raise InputError(f"{file}: is not a grayscale image (its mode is {image.mode}); save it in grayscale")
            pixels = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        raise InputError(f"{file}: this slice cannot be read; is it complete? ({one_line(error)})") from error
    # some versions of Pillow widen 16-bit PNG to 32 bits; PNG itself has no 32-bit pixels
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels


def _one_of_each(names: Sequence[str]) -> str:
    png = [name for name in sorted(names) if name.lower().endswith(".png")]
    others = [name for name in sorted(names) if not name.lower().endswith(".png")]
    return f"{png[0]}, {others[0]}"


def _describe(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} {pixels.dtype}"
