# SPDX-License-Identifier: Apache-2.0
"""The file of results, which is continued row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.json_file import write_json

from benchmarks.paper.recipes import Row
from benchmarks.paper.tasks import Task


class Results:
    """The file of results: written after each row, continued when it is there.

    Args:
        path: of the JSON.
        sizes: a section of ``tables.yaml``; rows of other sizes cannot be in the same tables.

    Attributes:
        content: what the file holds, which is what the page is made of.

    Raises:
        InputError: if the file holds results of other sizes.
    """

    def __init__(self, path: Path, sizes: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"sizes": dict(sizes), "interpolations": {}, "rows": {}, "seconds": {}}
        if path.is_file():
            self.content = self._read(path, sizes)

    @staticmethod
    def _read(path: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, value in content["sizes"].items():
            if sizes.get(name) != value:
                raise InputError(
                    f"{path} holds results with {name} {value}, not {sizes.get(name)}: "
                    "give another file, or the sizes that it was made with in tables.yaml"
                )
        return {**content, "sizes": dict(sizes)}  # a table that was declared since is taken in

    def join(self, path: Path) -> None:
        """Take in what another file has and this one has not, and write the file.

        Raises:
            InputError: if the other holds results of other sizes.
        """
        other = self._read(path, self.content["sizes"])
        for table, rows in other["rows"].items():
            for title, row in rows.items():
                mine = self.content["rows"].setdefault(table, {}).setdefault(title, {"kind": row["kind"], "seeds": {}})
                mine["seeds"] = dict(sorted({**row["seeds"], **mine["seeds"]}.items()))
        for seed, seconds in other["seconds"].items():
            self.content["seconds"][seed] = {**seconds, **self.content["seconds"].get(seed, {})}
        self.content["interpolations"] = {**other["interpolations"], **self.content["interpolations"]}
        self.content = {**other, **self.content}
        self.write()

    def has(self, table: str, title: str, seed: int) -> bool:
        """Whether a row is there."""
        return str(seed) in self.content["rows"].get(table, {}).get(title, {}).get("seeds", {})

    def interpolations(self, task: Task, score: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
        """Title -> scores of the interpolations at a task's factor, which are scored if they are not there."""
        name = f"{task.factor:g}"
        if name not in self.content["interpolations"]:
            self.content["interpolations"][name] = score()
            self.write()
        return self.content["interpolations"][name]

    def add(self, table: str, row: Row, seed: int, entry: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """Take in the scores of a row and the seconds of what was trained for it, and write the file."""
        rows = self.content["rows"].setdefault(table, {})
        rows.setdefault(row.title, {"kind": row.kind, "seeds": {}})["seeds"][str(seed)] = entry
        self.content["seconds"].setdefault(str(seed), {}).update(seconds)
        self.write()

    def arrange(self, order: Iterable[tuple[str, Row]]) -> None:
        """Put the rows in an order, whenever each was run."""
        there = self.content["rows"]
        self.content["rows"] = {}
        for table, row in order:
            if row.title in there.get(table, {}):
                self.content["rows"].setdefault(table, {})[row.title] = there[table][row.title]
        self.write()

    def write(self) -> None:
        """Bring the file up to date."""
        write_json(self.path, self.content)
