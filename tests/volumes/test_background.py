# SPDX-License-Identifier: Apache-2.0
"""Work beside the computation: in order, bounded, and never silent about a failure."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from scripts.volumes.background import WAITING, Background


def test_all_work_is_done_in_order():
    done: list[int] = []
    with Background() as background:
        for number in range(20):
            background.run(partial(done.append, number))
    assert done == list(range(20))


def test_no_more_waits_than_memory_is_meant_for():
    gate, begun = threading.Event(), threading.Event()
    given = 0

    def wait() -> None:
        begun.set()
        gate.wait()

    def give() -> None:
        nonlocal given
        with Background() as background:
            for _ in range(3 * WAITING):
                background.run(wait)
                given += 1

    giver = threading.Thread(target=give)
    giver.start()
    assert begun.wait(10)
    giver.join(0.2)
    assert giver.is_alive() and given <= WAITING
    gate.set()
    giver.join(10)
    assert not giver.is_alive() and given == 3 * WAITING


def test_failure_ends_the_block_though_it_came_last():
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        with Background() as background:
            background.run(fail)


def test_failure_ends_endless_work():
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        with Background() as background:
            while True:
                background.run(fail)


def test_what_has_not_begun_is_dropped_when_the_block_fails():
    gate, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt):
        with Background() as background:
            background.run(gate.wait)
            background.run(lambda: done.append(1))
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt
    assert done == []
