# SPDX-License-Identifier: Apache-2.0
"""A folder of 2-D slices, one PNG or TIFF file each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.errors import InputError, one_line
from scripts.io import tiff
from scripts.io.stack import Stack

SUFFIXES = (".png", *tiff.SUFFIXES)
_GREYSCALE_MODES = ("L", "I;16", "I;16B", "I;16L", "I", "F")


@contextmanager
def open_stack(path: Path) -> Iterator[Stack]:
    """
    Open the slices of a folder in natural order (slice2 before slice10). Other and hidden files are passed over.

    Args:
        path: the folder.

    Yields:
        The stack, of the size and dtype of the first slice, without a voxel size; a slice that is not like the first raises
        InputError where it is read.

    Raises:
        InputError: there are no slices, PNG and TIFF are mixed, or the first cannot be read.
    """
    files = _slices(path)
    first = _read_slice(files[0])

    def read(index: int) -> np.ndarray:
        pixels = _read_slice(files[index])
        if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{files[index]}: is {_describe(pixels)}, but {files[0].name} is {_describe(first)}; make all alike"
            )
        return pixels.transpose()

    yield Stack((*first.shape[::-1], len(files)), first.dtype, None, None, read)


def _slices(path: Path) -> list[Path]:
    """Return the files of the slices in their order."""
    files = sorted(
        (file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")),
        key=natural_key,
    )
    if not files:
        raise InputError(f"{path}: is a folder without slices; it must hold 2-D images ending in {', '.join(SUFFIXES)}")
    if len({file.suffix.lower() == ".png" for file in files}) > 1:
        raise InputError(f"{path}: holds both PNG and TIFF files; leave the slices of one volume alone in the folder")
    return files


def natural_key(file: Path) -> list[str | int]:
    """
    Return a key that sorts by the numbers in a file name.

    Args:
        file: path, of which the name counts.

    Returns:
        Text and numbers in turn, text first.
    """
    parts = re.split(r"(\d+)", file.name.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _read_slice(file: Path) -> np.ndarray:
    """Return the pixels of one file in (y, x) order."""
    try:
        if file.suffix.lower() != ".png":
            return tiff.read_slice(file)
        with Image.open(file) as image:
            if image.mode not in _GREYSCALE_MODES:
                raise InputError(f"{file}: is not a greyscale image (its mode is {image.mode}); save it in greyscale")
            pixels = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions for a damaged file
        raise InputError(f"{file}: this slice cannot be read; is it complete? ({one_line(error)})") from error
    # some versions of Pillow widen 16-bit PNG to 32 bits; PNG itself has no 32-bit pixels
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels


def _describe(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} {pixels.dtype}"
