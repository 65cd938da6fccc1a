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

"""Which axes of a file are Z, Y and X, by their names in the file or by the option ``--axes``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError

_VOLUME = "ZYX"
_UNNAMED = "IQ"  # what tifffile calls the pages of a file that does not say what they are
_MEANINGS = {
    "T": "time points",
    "C": "channels",
    "S": "color channels",
    "A": "angles",
    "P": "phases",
    "M": "mosaic tiles",
}


class Order(NamedTuple):
    """The spatial axes of a file in its own order, singleton axes left out.

    Attributes:
        letters: Z, Y and X in the order of the file, the slowest axis first.
        sizes: number of voxels along these axes.
        places: their indices among all axes of the file.
    """

    letters: str
    sizes: tuple[int, int, int]
    places: tuple[int, int, int] = (0, 1, 2)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z)."""
        x, y, z = (self.sizes[self.letters.index(letter)] for letter in "XYZ")
        return x, y, z

    @property
    def to_xyz(self) -> tuple[int, int, int]:
        """Permutation that brings an array of this order to X, Y, Z, for ``numpy.transpose``."""
        x, y, z = (self.letters.index(letter) for letter in "XYZ")
        return x, y, z


def check_axes(axes: Any, option: str = "axes") -> str | None:
    """
    Return the option ``--axes`` in upper case, None when it was not given.

    Raises:
        InputError: it is not a word of letters with Z, Y and X once each.
    """
    if axes is None:
        return None
    if isinstance(axes, (list, tuple)):
        raise InputError(
            f"--{option} {list(axes)}: is what the axes of the file are, such as --{option} ZYX; the axes along which "
            f'sequences are drawn in training are now --sequence_axes "{list(axes)}"'
        )
    letters = str(axes).upper()
    if not letters.isalpha() or any(letters.count(letter) != 1 for letter in _VOLUME):
        raise InputError(
            f"--{option} {axes}: give Z, Y and X once each, in the order in which the file has them, "
            f"such as --{option} ZYX"
        )
    return letters


def order_given(axes: str, shape: Sequence[int], file: Path) -> Order:
    """
    Return the order of the axes of an array that the option ``--axes`` names.

    Args:
        axes: from :func:`check_axes`, one letter for each axis of the array, or for each one longer than 1.
        shape: of the array.
        file: for the error.

    Raises:
        InputError: it does not fit the array.
    """
    for places in (range(len(shape)), [place for place, size in enumerate(shape) if size > 1]):
        if len(places) != len(axes):
            continue
        if all(shape[place] == 1 for place, letter in zip(places, axes) if letter not in _VOLUME):
            first, second, third = (place for place, letter in zip(places, axes) if letter in _VOLUME)
            letters = "".join(letter for letter in axes if letter in _VOLUME)
            return Order(letters, (shape[first], shape[second], shape[third]), (first, second, third))
    raise InputError(
        f"--axes {axes}: does not fit {file}, whose axes have the sizes {_sizes(shape)}; give one letter for each axis "
        "that is longer than 1, Z, Y and X"
    )


def order_named(names: str, shape: Sequence[int], file: Path) -> Order:
    """
    Return the order of the axes of a file that names them.

    Args:
        names: tifffile's letters, one for each axis.
        shape: of the array.
        file: for the error.

    Raises:
        InputError: these are not the axes of one volume of one channel.
    """
    axes = [(name, size) for name, size in zip(names, shape) if size > 1 or name in _VOLUME]
    if len(axes) > 3:
        axes = [(name, size) for name, size in axes if (name, size) != ("Z", 1)]
    letters = "".join(name for name, _ in axes)
    sizes = tuple(size for _, size in axes)
    if len(letters) == 3 and letters[0] in _UNNAMED and letters[1:] == "YX":
        letters = _VOLUME
    if sorted(letters) == sorted(_VOLUME):
        return Order(letters, (sizes[0], sizes[1], sizes[2]))
    if len(letters) < 3:
        raise InputError(f"{file}: is a single 2-D image, but a volume is needed; give a stack of slices")
    named = f"says that its axes are {letters}, of the sizes {_sizes(sizes)}"
    other, count = next(((name, size) for name, size in axes if name not in _VOLUME), axes[0])
    meaning = _MEANINGS.get(other, "something else")
    if len(letters) == 3 and letters[1:] == "YX":  # slices are often written without saying that they are slices
        raise InputError(
            f"{file}: {named}: {count} {meaning}; if they are the slices of a volume, add --axes ZYX; if not, save "
            "one of them in grayscale as a file of its own"
        )
    for name, size in axes:
        if name in "CS":
            kind = "a color image" if name == "S" else "an image"
            raise InputError(f"{file}: is {kind} of {size} channels; save one channel in grayscale ({named})")
    advice = ", or, if that is wrong, say with --axes what they are" if len(letters) == 3 else ""
    raise InputError(
        f"{file}: {named}, with {meaning} along {other}; save one time point or position as a file of its own{advice}"
    )


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
