# SPDX-License-Identifier: Apache-2.0
"""An extension of mkdocstrings: names that share an entry of a docstring, "x, y: their sides", get one each on the
site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(?P<indent> *)(Args|Attributes):$")
_ENTRY = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*)$")


class NamesApart(griffe.Extension):
    """Rewrites docstrings before they are parsed, which would take the second name for the type of the first."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = names_apart(obj.docstring.value)


def names_apart(docstring: str) -> str:
    """Repeat entries of Args and Attributes that have several names for each of them."""
    result: list[str] = []
    inside: int | None = None  # indentation of the section that a line is in
    entry: list[str] = []  # lines of the entry of several names that a line may go on
    names: list[str] = []

    def finish() -> None:
        for name in names:
            result.extend([entry[0].replace("NAME", name, 1), *entry[1:]])
        names.clear()

    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if names and (not line.strip() or indent <= len(entry[0]) - len(entry[0].lstrip())):
            finish()
        section = _SECTION.match(line)
        if section:
            inside = len(section["indent"])
        elif line.strip() and inside is not None and indent <= inside:
            inside = None
        shared = _ENTRY.match(line) if inside is not None else None
        if names:
            entry.append(line)
        elif shared:
            names.extend(shared["names"].split(", "))
            entry = [f"{shared['indent']}NAME: {shared['text']}"]
        else:
            result.append(line)
    finish()
    return "\n".join(result)
