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

"""The names that files of arrays give to the axes, as the letters of :mod:`scripts.volumes.axes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.axes import Selection

_NAMES = {"z": "Z", "y": "Y", "x": "X", "t": "T", "time": "T", "c": "C", "channel": "C", "channels": "C"}
_OTHER = "Q"


def _letter(name: Any) -> str:
    """Return the letter of an axis by its name, "I" without one. "c^" is how funlib marks a channel."""
    if name is None or str(name).startswith("dim_"):
        return "I"
    return _NAMES.get(str(name).strip().rstrip("^'").lower(), _OTHER)


def letters(names: Any, rank: int) -> str | None:
    """Return a letter for each axis, None if there is not one name for each axis."""
    if not isinstance(names, (list, tuple)) or len(names) != rank:
        return None
    found = "".join(_letter(name) for name in names)
    return None if set(found) <= {"I"} else found


def given_names(selection: Selection, shape: Sequence[int]) -> str | None:
    """Return the option ``--axes`` with a letter for each axis of an array, None where it is not given or does not fit."""
    axes = selection.axes or ""
    for places in (range(len(shape)), [place for place, size in enumerate(shape) if size > 1]):
        if axes and len(places) == len(axes):
            letters_at = dict(zip(places, axes))
            return "".join(letters_at.get(place, "I") for place in range(len(shape)))
    return None


def unnamed(folder: Path, shape: Sequence[int], order: str) -> str:
    """
    Return letters for axes without names.

    Args:
        folder: for the error.
        shape: of the array.
        order: of Z, Y and X in this format.

    Raises:
        InputError: more than three axes are longer than 1.
    """
    long = [place for place, size in enumerate(shape) if size > 1]
    if len(shape) <= 3:
        return order[-len(shape) :] if order[0] == "Z" else order[: len(shape)]
    if len(long) <= 3:
        return "".join(order[long.index(place)] if place in long else "I" for place in range(len(shape)))
    raise InputError(
        f"{folder}: has {len(shape)} axes without names, of the sizes {' x '.join(map(str, shape))}; say with --axes "
        f"what they are, such as --axes {'C' + order if order[0] == 'Z' else order + 'C'}"
    )
