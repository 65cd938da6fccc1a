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

"""The order of slices by the numbers in their file names, and whether it is ambiguous. No file is read here."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from enum import IntEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path, PurePath
from typing import NamedTuple

from scripts.errors import InputError
from tifffile import natural_sorted

# A hyphen is a minus sign at the beginning or after a separator: slice-3 is slice 3, z_-3 and z=-3 are minus 3.
_SIGN = r"(?:(?:(?<=[_=(])|^)[-+])?"
_ANY_SIGN = r"(?:(?<!\d)[-+])?"
_SHOWN = 3  # names that an error lists


class _Reading(NamedTuple):
    """A way to find numbers in a name."""

    decimal: bool
    any_sign: bool

    def split(self, stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the texts of a name and the numbers between them."""
        number = (_ANY_SIGN if self.any_sign else _SIGN) + (r"\d+(?:[.,]\d+)?" if self.decimal else r"\d+")
        parts = re.split(f"({number})", stem)
        return tuple(parts[::2]), tuple(parts[1::2])


class _Where(NamedTuple):
    """What the user has given as the volume: a folder, or a pattern in it."""

    folder: Path
    given: str | None

    @property
    def chosen(self) -> bool:
        """Whether the user has picked the files."""
        return self.given is not None

    def pattern(self, pattern: str) -> str:
        """Return a pattern with its folder, quoted for the shell."""
        return f"'{self.folder / pattern}'"

    def __str__(self) -> str:
        return str(self.folder if self.given is None else self.folder / self.given)


class _Doubt(IntEnum):
    """What speaks against an order; the higher, the more of the names was understood."""

    SERIES = 0
    RUNS = 1
    TWICE = 2
    BLOCKS = 3
    GAP = 4
    NONE = 5


class _Order(NamedTuple):
    """An order of slices, what speaks against it, and the text of the error or, where nothing does, of a remark."""

    doubt: _Doubt
    names: tuple[str, ...] = ()
    says: str = ""


def slices_in_order(names: Sequence[str], folder: Path, pattern: str | None = None) -> tuple[list[str], str]:
    """
    Sort the slices of one volume.

    Args:
        names: file names of one folder.
        folder: for the errors.
        pattern: with which the user chose these files, None for the whole folder. With a pattern, numbers may be
            missing, and names without numbers are sorted alphabetically.

    Returns:
        The names in order, and a remark for the user, empty where there is nothing to say.

    Raises:
        InputError: the names are ambiguous: a number is missing or occurs twice, or there are several series of slices.
    """
    if len(names) < 2:
        return list(names), ""
    where = _Where(folder, pattern)
    if not any(character.isdigit() for name in names for character in _stem(name)):
        return _without_numbers(names, where)
    orders: list[_Order] = []
    for any_sign in (False, True):
        orders += [_order(names, _Reading(decimal, any_sign), where) for decimal in (False, True)]
        if any(order.doubt > _Doubt.SERIES for order in orders):
            break
    best = max(order.doubt for order in orders)
    clear = best == _Doubt.NONE or (best >= _Doubt.BLOCKS and where.chosen)
    found = [order for order in orders if order.doubt == best]
    if best >= _Doubt.BLOCKS and len({order.names for order in found}) > 1:
        raise InputError(
            f"{where}: the numbers in {_list(found[0].names)} may be decimals or not, and the order depends on it; "
            "rename the files, each with one whole number"
        )
    if not clear:
        raise InputError(f"{where}: {found[0].says}")
    return list(found[0].names), found[0].says if best == _Doubt.NONE else ""


def _without_numbers(names: Sequence[str], where: _Where) -> tuple[list[str], str]:
    in_order = sorted(names, key=lambda name: (name.lower(), name))
    if not where.chosen:
        raise InputError(
            f"{where}: {_list(in_order)} have no numbers that tell their order; number them, or give "
            f"{where.pattern('*' + _suffix(in_order[0]))} in place of the folder to take them by the alphabet"
        )
    return in_order, f"{where}: takes {_list(in_order)} in the order of the alphabet"


def _order(names: Sequence[str], reading: _Reading, where: _Where) -> _Order:
    """Return the order of the files when their names are read in this way."""
    split = {name: reading.split(_stem(name).lower()) for name in names}
    kinds: dict[tuple[str, ...], list[str]] = {}
    for name in natural_sorted(names):
        kinds.setdefault(split[name][0], []).append(name)
    if len(kinds) > 1:
        return _Order(_Doubt.SERIES, says=_says_of_series(list(kinds.values()), names, where))
    if reading.decimal and _looks_like_chapters([split[name][1] for name in names]):
        return _Order(_Doubt.SERIES)
    numbers = {name: tuple(_value(number) for number in split[name][1]) for name in names}
    fields = list(zip(*numbers.values()))
    varying = [field for field, values in enumerate(fields) if len(set(values)) > 1]
    running = [field for field in varying if len(set(fields[field])) == len(names)]
    if not running and len(varying) < 2:
        (twice, _), *_ = Counter(numbers.values()).most_common(1)
        same = sorted(name for name in names if numbers[name] == twice)
        return _Order(_Doubt.TWICE, says=f"{_list(same)} have the same number; keep one of them")
    in_order = tuple(sorted(names, key=lambda name: numbers[name][running[0]])) if running else ()
    columns = {field: [numbers[name][field] for name in in_order] for field in varying}
    if not running or not all(_goes_on(columns[field]) for field in varying):
        return _Order(_Doubt.RUNS, says=_says_of_runs(names, split, fields, varying, where))
    if len(running) < len(varying):
        says = _says_of_runs(names, split, fields, varying, where)
        together = _pattern(names, names, split)
        advice = f"; to take them all as one, give {where.pattern(together)}" if together else ""
        return _Order(_Doubt.BLOCKS, in_order, says + advice)
    gaps = {field: _gap(columns[field], in_order, field, split) for field in running}
    if all(gaps.values()):
        pattern = _pattern(in_order, names, split)
        advice = (
            f", or give {where.pattern(pattern)} in place of the folder to take them as they are" if pattern else ""
        )
        return _Order(_Doubt.GAP, in_order, f"{gaps[running[0]]}; add what is missing{advice}")
    return _Order(_Doubt.NONE, in_order, _says_of_step(columns[running[0]], in_order, where))


def differ_in_numbers(name: str, other: str) -> bool:
    """Whether the names of two files are the same except for numbers and suffixes."""
    texts, more_texts = (_Reading(False, False).split(_stem(each).lower())[0] for each in (name, other))
    return texts == more_texts


def _gap(values: Sequence[Fraction], names: Sequence[str], field: int, split: dict) -> str:
    """Return the text about numbers that are not evenly spaced, empty if they are."""
    steps = [after - before for before, after in zip(values, values[1:])]
    often = Counter(steps)
    step = min(often, key=lambda step: (-often[step], abs(step)))
    decimals = max(_decimals(split[name][1][field]) for name in names)
    rounding = Fraction(1, 10**decimals) if decimals else Fraction(0)  # of names such as 0.33, 0.67, 1.00
    uneven = [
        index
        for index, found in enumerate(steps)
        if abs(found - step) > rounding or (found != step and 2 * abs(found - step) >= abs(step))
    ]
    if not uneven and (len(steps) > 1 or decimals or abs(step) == 1):
        return ""
    if not uneven:  # two files alone do not tell how they count
        step, uneven = Fraction(1 if step > 0 else -1), [0]
    first = uneven[0]
    between = f"between {names[first]} and {names[first + 1]}"
    more = f", and {len(uneven) - 1} more of the kind" if len(uneven) > 1 else ""
    missing = steps[first] / step - 1
    if missing < 1 or missing.denominator != 1:
        return f"the slices are not numbered evenly: {between} the step is another than elsewhere{more}"
    low, high = values[first] + step, values[first + 1] - step
    if missing == 1:
        return f"slice {_shown(low)} is missing {between}{more}"
    return f"slices {_shown(low)} to {_shown(high)} are missing {between}{more}"


def _says_of_step(values: Sequence[Fraction], names: Sequence[str], where: _Where) -> str:
    """Return the remark on whole numbers that go up by more than 1."""
    step = abs(values[1] - values[0])
    if step == 1 or step.denominator != 1:
        return ""
    return f"{where}: the slices are numbered by {step} ({_list(names)}); they are taken as neighbors"


def _says_of_series(kinds: Sequence[Sequence[str]], names: Sequence[str], where: _Where) -> str:
    """Return the text about files whose names differ in more than numbers."""
    largest = max(kinds, key=len)
    others = [kind for kind in kinds if kind is not largest]
    if len(largest) == 1:
        told = f"the names of {_list([kind[0] for kind in kinds])} differ in more than a number"
    elif all(len(kind) == 1 for kind in others):
        told = f"holds {_list([kind[0] for kind in others])} beside {len(largest)} slices such as {largest[0]}"
    else:
        several = [largest, *others]
        shown = " and ".join(f"{_list(kind)} ({len(kind)} files)" for kind in several[:_SHOWN])
        told = f"holds {len(several)} series of slices: {shown}{' and others' if len(several) > _SHOWN else ''}"
    split = {name: _Reading(False, False).split(_stem(name).lower()) for name in names}
    return told + _advice(_pattern(largest, names, split) if len(largest) > 1 else None, where)


def _says_of_runs(
    names: Sequence[str], split: dict, fields: Sequence[Sequence[Fraction]], varying: Sequence[int], where: _Where
) -> str:
    """Return the text about names in which several numbers vary, such as slice and channel."""
    field = min(varying, key=lambda field: (len(set(fields[field])), _text_before(names[0], split, field) == "z"))
    series: dict[str, list[str]] = {}
    for name in natural_sorted(names):
        series.setdefault(split[name][1][field], []).append(name)
    values = [f"{_text_before(names[0], split, field)}{value}" for value in series]
    shown = ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
    several = [each for each in series.values() if len(each) > 1]
    told = f"more than one number differs in the names of {_list(natural_sorted(names))}: "
    told += f"{shown} may be several series" if several else "one runs up where another does not"
    return told + _advice(_pattern(several[0], names, split) if several else None, where)


def _advice(pattern: str | None, where: _Where) -> str:
    """Return how to choose one of several series."""
    if pattern is None:
        return "; keep the slices of one volume alone in the folder, each with one number"
    if where.chosen:
        return f"; narrow the pattern to one series, such as {where.pattern(pattern)}"
    return f"; to take one series, give {where.pattern(pattern)} in place of the folder"


def _pattern(series: Sequence[str], names: Sequence[str], split: dict) -> str | None:
    """Return a shell pattern that matches these files and no others of the folder, None if no simple one does."""
    first = series[0]
    stem = _stem(first)
    texts, _ = split[first]
    for wildcard in ("*", "?", "[0-9]"):
        parts, at = [], 0
        for field, text in enumerate(texts):
            parts.append(glob.escape(stem[at : at + len(text)]))
            at += len(text)
            if field < len(split[first][1]):
                number = split[first][1][field]
                same = all(split[name][1][field] == number for name in series)
                parts.append(number if same else wildcard if wildcard == "*" else wildcard * len(number))
                at += len(number)
        pattern = "".join(parts) + (_suffix(first) if len({_suffix(name) for name in series}) == 1 else "*")
        if {name for name in names if fnmatchcase(name, pattern)} == set(series):
            return pattern
    return None


def _text_before(name: str, split: dict, field: int) -> str:
    """Return the letters right before a number of a name."""
    return re.search(r"[^\W\d_]*$", split[name][0][field])[0]  # type: ignore[index]


def _goes_on(values: Sequence[Fraction]) -> bool:
    """Whether numbers go in one direction from slice to slice; rising ones may repeat."""
    pairs = list(zip(values, values[1:]))
    return all(a <= b for a, b in pairs) or all(a > b for a, b in pairs)


def _looks_like_chapters(numbers: Sequence[Sequence[str]]) -> bool:
    """Whether decimals are rather two whole numbers each: 3.10, after 3.9, is not how a program writes 3.1."""
    for field in zip(*numbers):
        behind = [re.split("[.,]", number)[1] for number in field if re.search("[.,]", number)]
        if len({len(digits) for digits in behind}) > 1 and any(
            digits.endswith("0") and digits != "0" for digits in behind
        ):
            return True
    return False


def _value(number: str) -> Fraction:
    return Fraction(number.replace(",", "."))


def _decimals(number: str) -> int:
    return len(re.split("[.,]", number)[1]) if re.search("[.,]", number) else 0


def _shown(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"{float(number):g}"


def _stem(name: str) -> str:
    return PurePath(name).stem


def _suffix(name: str) -> str:
    return PurePath(name).suffix


def _list(names: Sequence[str]) -> str:
    """Return the first names, and the last one where that is not among them."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:2])}, ..., {names[-1]}"
