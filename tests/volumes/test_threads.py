# SPDX-License-Identifier: Apache-2.0
"""Parts of a volume that several threads work on come back in their order, and no more of them than memory allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from scripts.volumes import threads
from scripts.volumes.threads import in_threads


@pytest.mark.parametrize("size", [1, 2**22, 2**28, 2**40])
def test_results_come_in_order(monkeypatch, size):
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)

    def slow(part: int) -> int:
        time.sleep(0.002 * (part % 3))
        return 2 * part

    assert list(in_threads(slow, iter(range(20)), size)) == [2 * part for part in range(20)]


def test_several_threads_work_at_once(monkeypatch):
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    together = threading.Barrier(4, timeout=10)
    assert list(in_threads(lambda _: together.wait() >= 0, range(8), 2**22)) == [True] * 8


@pytest.mark.parametrize("size", [2**20, 2**30])
def test_small_and_very_large_parts_are_made_one_at_a_time(monkeypatch, size):
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    taken: list[int] = []

    def parts() -> Iterator[int]:
        for part in range(5):
            taken.append(part)
            yield part

    results = in_threads(lambda part: part, parts(), size)
    assert next(results) == 0 and taken == [0]


def test_what_goes_wrong_is_raised_in_its_place():
    def broken(part: int) -> int:
        if part == 3:
            raise ValueError("part 3")
        return part

    found = []
    with pytest.raises(ValueError, match="part 3"):
        for result in in_threads(broken, range(9), 2**22):
            found.append(result)
    assert found == [0, 1, 2]
