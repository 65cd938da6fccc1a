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

"""Which axes of an array are Z, Y and X, and which time point and channel to read: from the names in the file, or from
the options ``--axes``, ``--time`` and ``--channel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError

_VOLUME = "ZYX"
_MOST_LISTED = 12
_UNNAMED = "IQ"  # what tifffile calls the pages of a file that does not say what they are
_MEANINGS = {
    "T": "time points",
    "C": "channels",
    "S": "color channels",
    "A": "angles",
    "P": "phases",
    "M": "mosaic tiles",
}


# option -> (letters of the axes that it chooses from, what lies along them)
_CHOSEN = {"time": ("T", "time points"), "channel": ("CS", "channels")}


class Selection(NamedTuple):
    """
    Which volume of a file to read, from :func:`check_selection`.

    Attributes:
        axes: the option ``--axes``: names of the array's axes, in its order.
        dataset: the option ``--dataset``: path of the array in a file or folder that holds several, or number of a
            level of a pyramid.
        time: the option ``--time``: number of a time point, from 0.
        channel: the option ``--channel``: number of a channel, from 0.
    """

    axes: str | None = None
    dataset: str | None = None
    time: int | None = None
    channel: int | None = None

    def refuse_dataset(self, file: Path, kind: str) -> None:
        """Raise InputError where ``--dataset`` is given, for a format whose files hold one array."""
        if self.dataset is not None:
            raise InputError(f"--dataset {self.dataset}: {file} is {kind}, which holds one volume; leave it out")


NO_SELECTION = Selection()
"""Without options: the only volume of the file."""


class Order(NamedTuple):
    """The spatial axes of an array in its own order, others left out.

    Attributes:
        letters: Z, Y and X in the order of the array, the slowest axis first.
        sizes: number of voxels along these axes.
        places: their indices among all axes of the array.
        picks: (axis, index along it) for each axis of which a single index is read.
    """

    letters: str
    sizes: tuple[int, int, int]
    places: tuple[int, int, int] = (0, 1, 2)
    picks: tuple[tuple[int, int], ...] = ()

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

    def box(self, ndim: int, x: slice, y: slice, z: slice) -> tuple[slice | int, ...]:
        """Index of a box of voxels in an array of ``ndim`` axes; the result has the axes of ``letters``."""
        where: list[slice | int] = [0] * ndim
        for place, number in self.picks:
            where[place] = number
        for place, letter in zip(self.places, self.letters):
            where[place] = {"X": x, "Y": y, "Z": z}[letter]
        return tuple(where)


def check_selection(
    axes: Any = None, dataset: Any = None, time: Any = None, channel: Any = None, option: str = "axes"
) -> Selection:
    """
    Return the options that select a volume of a file.

    Args:
        axes, dataset, time, channel: see :class:`Selection`; None where an option was not given.
        option: name of the option of the axes, for its errors.

    Raises:
        InputError: ``axes`` is not a word of letters with Z, Y and X once each, or a number is not a whole number from
            0 up.
    """
    for name, number in (("time", time), ("channel", channel)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise InputError(f"--{name} {number}: give a whole number from 0 up")
    return Selection(check_axes(axes, option), None if dataset is None else str(dataset), time, channel)


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


def order_of(names: str, shape: Sequence[int], selection: Selection, file: Path, channels: Sequence[str] = ()) -> Order:
    """
    Return the order of the axes of an array, as the options name them, or else as the file does.

    Args:
        names: one letter for each axis, as tifffile has them: Z, Y, X, T(ime), C(hannel), S(ample of a color).
        shape: of the array.
        selection: the options.
        file: for the errors.
        channels: their names, for the errors.

    Raises:
        InputError: the selection is not a single volume of one channel.
    """
    if selection.axes is not None:
        return order_given(selection, shape, file)
    return order_named(names, shape, file, selection, channels)


def order_given(selection: Selection, shape: Sequence[int], file: Path) -> Order:
    """
    Return the order of the axes of an array that the option ``--axes`` names.

    Args:
        selection: the options; its axes are one letter for each axis of the array, or for each one longer than 1.
        shape: of the array.
        file: for the error.

    Raises:
        InputError: they do not fit the array.
    """
    axes = selection.axes or ""
    for places in (range(len(shape)), [place for place, size in enumerate(shape) if size > 1]):
        if len(places) != len(axes):
            continue
        picks = _picks(axes, [shape[place] for place in places], selection, file)
        chosen = {places[at] for at, _ in picks}
        rest = [place for place, letter in zip(places, axes) if letter not in _VOLUME and place not in chosen]
        if all(shape[place] == 1 for place in rest):
            first, second, third = (place for place, letter in zip(places, axes) if letter in _VOLUME)
            letters = "".join(letter for letter in axes if letter in _VOLUME)
            sizes = (shape[first], shape[second], shape[third])
            return Order(letters, sizes, (first, second, third), tuple((places[at], number) for at, number in picks))
        raise InputError(
            f"--axes {axes}: {file} has the sizes {_sizes(shape)} along them, and one volume of one channel is needed; "
            "choose a time point T with --time and a channel C with --channel"
        )
    raise InputError(
        f"--axes {axes}: does not fit {file}, whose axes have the sizes {_sizes(shape)}; give one letter for each axis "
        "that is longer than 1, Z, Y and X"
    )


def order_named(
    names: str, shape: Sequence[int], file: Path, selection: Selection = NO_SELECTION, channels: Sequence[str] = ()
) -> Order:
    """
    Return the order of the axes of a file that names them.

    Args:
        names: tifffile's letters, one for each axis.
        shape: of the array.
        file: for the error.
        selection: the options, without axes.
        channels: their names, for the error.

    Raises:
        InputError: these are not the axes of one volume of one channel.
    """
    picks = _picks(names, shape, selection, file)
    chosen = {place for place, _ in picks}
    axes = [
        (name, size, place)
        for place, (name, size) in enumerate(zip(names, shape))
        if place not in chosen and (size > 1 or name in _VOLUME)
    ]
    if len(axes) > 3:
        axes = [each for each in axes if each[:2] != ("Z", 1)]
    letters = "".join(name for name, _, _ in axes)
    sizes = tuple(size for _, size, _ in axes)
    if len(letters) == 3 and letters[0] in _UNNAMED and letters[1:] == "YX":
        letters = _VOLUME
    if sorted(letters) == sorted(_VOLUME):
        first, second, third = (place for _, _, place in axes)
        return Order(letters, (sizes[0], sizes[1], sizes[2]), (first, second, third), picks)
    if len(letters) < 3:
        raise InputError(f"{file}: is a single 2-D image, but a volume is needed; give a stack of slices")
    named = f"says that its axes are {letters}, of the sizes {_sizes(sizes)}"
    other, count = next(((name, size) for name, size, _ in axes if name not in _VOLUME), axes[0][:2])
    meaning = _MEANINGS.get(other, "something else")
    if len(letters) == 3 and letters[1:] == "YX":  # slices are often written without saying that they are slices
        raise InputError(
            f"{file}: {named}: {count} {meaning}; if they are the slices of a volume, add --axes ZYX; if not, save "
            "one of them in grayscale as a file of its own"
        )
    for name, size, _ in axes:
        if name in "CS":
            kind = "a color image" if name == "S" else "an image"
            raise InputError(
                f"{file}: is {kind} of {size} channels; choose one with --channel {_numbers(size, channels)}, or save "
                f"one channel in grayscale ({named})"
            )
    if other == "T":
        raise InputError(f"{file}: {named}: choose one time point with --time 0 to {count - 1}")
    advice = ", or, if that is wrong, say with --axes what they are" if len(letters) == 3 else ""
    raise InputError(
        f"{file}: {named}, with {meaning} along {other}; save one time point or position as a file of its own{advice}"
    )


def _picks(names: str, shape: Sequence[int], selection: Selection, file: Path) -> tuple[tuple[int, int], ...]:
    """(Index of an axis, number along it) for the time point and the channel that the options choose."""
    picks = []
    for option, (letters, meaning) in _CHOSEN.items():
        number = getattr(selection, option)
        if number is None:
            continue
        places = [place for place, name in enumerate(names) if name in letters]
        if not places:
            raise InputError(f"--{option} {number}: {file} has no axis of {meaning}; leave it out")
        place = max(places, key=lambda each: shape[each])
        if number >= shape[place]:
            raise InputError(f"--{option} {number}: {file} has {shape[place]} {meaning}, numbered from 0")
        picks.append((place, number))
    return tuple(picks)


def _numbers(count: int, names: Sequence[str]) -> str:
    """The numbers to choose from, with their names where all have one."""
    if len(names) != count or not all(names) or count > _MOST_LISTED:
        return f"0 to {count - 1}"
    named = [f"{number} ({' '.join(name.split())})" for number, name in enumerate(names)]
    return f"{', '.join(named[:-1])} or {named[-1]}"


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
