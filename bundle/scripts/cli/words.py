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

"""The words of a command line, read as Fire does, which MONAI uses."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fire.parser import DefaultParseValue
from scripts.cli.config_files import load_file

RUN_PARAMETERS = (  # of monai.bundle.run, in their order; copied because importing it takes seconds
    "run_id",
    "init_id",
    "final_id",
    "meta_file",
    "config_file",
    "logging_file",
    "tracking",
    "args_file",
)
_given: list[str] | None = None  # the words of a command that did not come by ``python -m monai.bundle run``


class Typed(NamedTuple):
    """An option of a command line.

    Attributes:
        value: as Fire reads it.
        text: as it was typed, None for a name without a value.
    """

    value: Any
    text: str | None


class Command(NamedTuple):
    """What a command line says.

    Attributes:
        options: by name.
        unnamed: words without a name, each with the option that it follows, None at the beginning.
    """

    options: dict[str, Typed]
    unnamed: list[tuple[str, str | None]]

    @property
    def run_id(self) -> str:
        """The section of the config that is to run."""
        given = self.options.get("run_id", Typed(None, None)).value
        return "run" if given is None else str(given)


def give_words(words: Sequence[str]) -> None:
    """Set the words of this process where it was not started by ``python -m monai.bundle run``."""
    global _given
    _given = list(words)


def words_given() -> list[str] | None:
    """What follows ``run`` on the command line that started this process; None where Python code runs a workflow."""
    if _given is not None:
        return _given
    by_monai = Path(sys.argv[0]).parts[-2:] == ("bundle", "__main__.py") and sys.argv[1:2] in (
        ["run"],
        ["run_workflow"],
    )
    return sys.argv[2:] if by_monai else None


def started_from_command_line() -> bool:
    """Whether this process is a run that a command line asked for."""
    return words_given() is not None


def wants_debug(words: Sequence[str]) -> bool:
    """Whether the words of a command ask for full tracebacks."""
    debug = _read_words(words).options.get("debug")
    return debug is not None and str(debug.value).lower() == "true"


def read_command(words: Sequence[str]) -> Command:
    """
    Return what a command line says.

    ``--name value``, ``--name=value`` and ``-name value`` are the same; hyphens in a name are underscores; a name
    followed by no value is True, or False for ``--noname``; what follows the last ``--`` is for Fire itself;
    values without a name are the first parameters of ``run`` that were not named. The options of an ``--args_file``
    stand in its place.

    Args:
        words: what follows ``run``.

    Raises:
        InputError: the ``--args_file`` cannot be read.
    """
    options, unnamed = _read_words(words)
    if "args_file" in options and isinstance(options["args_file"].value, str):
        stored = load_file("args_file", options.pop("args_file").value)
        options = {**{name: Typed(value, str(value)) for name, value in stored.items()}, **options}
    return Command(options, unnamed)


def _read_words(arguments: Sequence[str]) -> Command:
    """Return what a command line says without what stands in an ``--args_file``."""
    words = list(arguments)
    if "--" in words:
        words = words[: len(words) - 1 - words[::-1].index("--")]
    options: dict[str, Typed] = {}
    unnamed: list[tuple[str, str | None]] = []
    last: str | None = None
    while words:
        word = words.pop(0)
        if not _is_name(word):
            unnamed.append((word, last))
            continue
        name, equals, value = word.lstrip("-").partition("=")
        last = name = name.replace("-", "_")
        if equals:
            options[name] = Typed(DefaultParseValue(value), value)
        elif words and not _is_name(words[0]):
            value = words.pop(0)
            options[name] = Typed(DefaultParseValue(value), value)
        elif name.startswith("no") and name not in RUN_PARAMETERS:
            options[name[2:]] = Typed(False, None)
        else:
            options[name] = Typed(True, None)
    by_position = {
        name: Typed(DefaultParseValue(word), word)
        for name, (word, _) in zip((name for name in RUN_PARAMETERS if name not in options), unnamed)
    }
    options.update(by_position)
    if "dataset" in options and is_array_name(options["dataset"].value):
        options["array"] = options.pop("dataset")
    return Command(options, unnamed)


def is_array_name(value: Any) -> bool:
    """Whether a value that is given for ``dataset`` is the path of an array in a file, or the number of a level: the
    option that configs call ``array``. MONAI has the name for a section of the config.
    """
    plain = isinstance(value, str) and not value.startswith(("$", "@", "%"))
    return plain or (isinstance(value, int) and not isinstance(value, bool))


def _is_name(word: str) -> bool:
    """Whether Fire takes a word for the name of an option; a negative number is a value."""
    return word.startswith("--") or re.match(r"-[a-zA-Z]", word) is not None
