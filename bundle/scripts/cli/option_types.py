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

"""The types of options: how a config writes them, and whether a value is of one.

In a config a type stands in brackets at the beginning of an option's comment, ``batch_size: 16 # [whole number, from 1
to 65536] patches per step``. It is one of

- ``path``, ``true or false``, ``device`` (cpu, cuda, or cuda:1 for the second GPU), ``axes`` (of a file, such as ZYX)
  or ``name`` (any word);
- names to choose from, ``aenet | srunet``, or ``some of x | y | z``, a list of them;
- ``number`` or ``whole number``; ``3 numbers`` or ``whole numbers``, a list of that length, or of any length; and
  after a comma the bounds of each, ``from 1``, ``above 0``, ``from 0 to 1`` or ``above 0 to 1``. "To" includes the
  number.

``, required`` at the end, ``[path, required]``, is not part of the type: nothing runs without that option, or, with ``,
required or another``, without one of the two.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError

_NUMBERS = re.compile(
    r"(?:(?P<count>\d+) )?(?P<kind>(?:whole )?number)(?P<several>s)?"
    r"(?:, (?P<word>from|above) (?P<low>[\d.]+)(?: to (?P<high>[\d.]+))?)?"
)
_PLAIN = ("path", "true or false", "device", "name", "axes")
_CHOICE = re.compile(r"(?P<some>some of )?(?P<names>[\w.]+(?: \| [\w.]+)+)")
_LONGEST_SHOWN = 80  # characters of a value in an error


class OptionType(NamedTuple):
    """What values an option takes.

    Attributes:
        text: as the config says it.
        kind: "path", "true or false", "device", "name", "choice", "some of", "number" or "whole number".
        names: to choose from.
        length: 1 for a single value, more for a list of that length, 0 for a list of any length.
        low, high: bounds of each number; ``high`` belongs to them.
        above: whether ``low`` does not.
    """

    text: str
    kind: str
    names: tuple[str, ...] = ()
    length: int = 1
    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    @property
    def is_list(self) -> bool:
        """Whether a value is a list."""
        return self.length != 1

    def check(self, name: str, value: Any, typed: str | None = None, default: Any = None) -> Any:
        """
        Check a value.

        Args:
            name: of the option.
            value: as the command line, a config or Python code gives it. Numbers may be text ("1e-3" is text in YAML),
                and whole numbers may be given as 8.0.
            typed: text on the command line, if there is one. It is what a path or a name is taken from.
            default: of the option; a list serves as the example in the error.

        Returns:
            The value: numbers as int or float, lists as list, truth values as bool, a device as ``torch.device``.

        Raises:
            InputError: it is of another type, or outside the bounds.
        """
        shown = str(value) if typed is None else typed or "''"
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
        if self.kind in ("path", "name"):
            result: Any = value if typed is None else typed
            if isinstance(result, os.PathLike) or (isinstance(result, str) and result):
                return result
        elif self.kind == "device":
            return check_device(name, value)
        elif self.kind == "axes":
            from scripts.volumes.axes import check_axes

            return check_axes(value, name)
        elif self.kind == "true or false":
            result = {"true": True, "false": False}.get(str(value).lower())
        elif self.kind == "choice":
            result = str(value) if str(value) in self.names else None  # 0.5 is a number in YAML
        elif not self.is_list:
            result = self._number(value)
        else:
            result = self._list(value)
        if result is None or self.kind in ("path", "name"):
            raise InputError(f"--{name} {shown}: {self.wanted(name, default)}")
        return result

    def wanted(self, name: str, default: Any = None) -> str:
        """What to give, for an error."""
        if self.kind == "true or false":
            return "must be true or false"
        if self.kind in ("path", "name"):
            return f"give a {self.kind}"
        if self.kind == "device":
            return "give cpu, cuda, or cuda:1 for the second GPU"
        if self.kind == "choice":
            return f"there is none of that name; choose {listed(self.names, 'or')}"
        example = default if isinstance(default, list) else self.names[-1:] if self.names else [1] * (self.length or 2)
        brackets = f'in brackets, such as --{name} "{str(list(example)).replace(", ", ",")}"'
        if self.kind == "some of":
            return f"give one or more of {listed(self.names, 'and')} {brackets}"
        if self.length == 1:
            return f"give a {self.kind}{self._bounds()}"
        return f"give {self.length or 'some'} {self.kind}s{self._bounds()} {brackets}"

    def _bounds(self) -> str:
        if self.low == -math.inf:
            return ""
        word = "above" if self.above else "from"
        if self.high == math.inf:
            return f" {word} {_plain(self.low)}" + ("" if self.above else " up")
        return f" {word} {_plain(self.low)} {'and up ' if self.above else ''}to {_plain(self.high)}"

    def _number(self, value: Any) -> float | int | None:
        """Return a number of this kind within the bounds, or None."""
        if isinstance(value, bool):
            return None
        try:
            number = float(value)
            if not math.isfinite(number) or (self.kind == "whole number" and not number.is_integer()):
                return None
            if self.kind == "whole number" or (isinstance(value, int)):
                number = int(number)
        except (TypeError, ValueError, OverflowError):
            return None
        if number > self.high or number < self.low or (self.above and number == self.low):
            return None
        return number

    def _list(self, value: Any) -> list | None:
        """Return a list of this kind, or None."""
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or not value:
            return None
        if self.length and len(value) != self.length:
            return None
        items = [item if item in self.names else None for item in value] if self.names else map(self._number, value)
        result = list(items)
        return None if None in result else result


def parse_type(text: str) -> OptionType:
    """
    Return the type that a config says in brackets.

    Raises:
        ValueError: it is none.
    """
    if text in _PLAIN:
        return OptionType(text, text)
    choice = _CHOICE.fullmatch(text)
    if choice:
        kind, count = ("some of", 0) if choice["some"] else ("choice", 1)
        return OptionType(text, kind, tuple(choice["names"].split(" | ")), count)
    numbers = _NUMBERS.fullmatch(text)
    if not numbers or (numbers["count"] and not numbers["several"]):
        raise ValueError(f"[{text}] is no type of option; they are described in scripts/cli/option_types.py")
    count = int(numbers["count"] or 0) if numbers["several"] else 1
    low, high = float(numbers["low"] or -math.inf), float(numbers["high"] or math.inf)
    return OptionType(text, numbers["kind"], (), count, low, high, numbers["word"] == "above")


def check_device(name: str, value: Any) -> Any:
    """
    Return the ``torch.device`` of a name, if this machine has it.

    Raises:
        InputError: it is none, or PyTorch cannot use it.
    """
    match = re.fullmatch(r"(cpu|cuda)(?::(\d{1,3}))?", str(value))
    if not match or match[0].startswith("cpu:"):
        raise InputError(f"--{name} {value}: give cpu, cuda, or cuda:1 for the second GPU")
    import torch  # not at the top: takes seconds, and the error above does not need it

    if match[1] == "cuda":
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if number == 0:
            raise InputError(f"--{name} {value}: PyTorch finds no GPU that it can use here; give --{name} cpu")
        if int(match[2] or 0) >= number:
            there = "cuda:0 alone" if number == 1 else f"cuda:0 to cuda:{number - 1}"
            raise InputError(f"--{name} {value}: there is no such GPU here; there is {there}")
    return torch.device(str(value))


def kept_as_typed(path: str | os.PathLike) -> str | os.PathLike:
    """
    Return a path in a form that MONAI's configs leave as it is.

    In text they take what follows ``$`` for code, what follows ``@`` or ``%`` for the name of something else, and make
    ``::`` of ``#``; a ``Path`` means nothing to them.
    """
    return Path(path) if isinstance(path, str) and re.search("[$@%#]", path) else path


def listed(names: Sequence[str], word: str) -> str:
    """Return names as in a sentence: "x, y and z"."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else str(number)
