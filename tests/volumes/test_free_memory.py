# SPDX-License-Identifier: Apache-2.0
"""The memory that is free is what the tightest limit leaves."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest
from scripts.errors import InputError
from scripts.volumes import memory

MIB = 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """An empty tree of control groups, so that what this machine limits has no part in the test."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    return tmp_path


def limit(folder: Path, names: tuple[str, str], most: str, used: int, cache: str) -> None:
    for name, text in zip(names, (most, str(used))):
        (folder / name).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(cache)


V2, V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_machine_without_limits(groups):
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    "names, cache", [(V2, "anon 5\ninactive_file 3145728\n"), (V1, "total_inactive_file 3145728\n"), (V2, "")]
)
def test_limit_of_a_container(groups, names, cache):
    limit(groups, names, str(10 * MIB), 6 * MIB, cache)
    assert memory.free_memory() == (7 if cache else 4) * MIB  # 3 MiB of cache make room


def test_group_without_a_limit(groups):
    limit(groups, V2, "max", 6 * MIB, "")
    assert memory.free_memory() > 10 * MIB


def test_group_that_is_over_its_limit(groups):
    limit(groups, V2, str(MIB), 6 * MIB, "")
    assert memory.free_memory() == 0


def test_limit_of_the_address_space(groups, monkeypatch):
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 50 * MIB, resource.RLIM_INFINITY))
    assert memory.free_memory() <= 50 * MIB


def test_what_is_needed_and_free_is_told(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 3 * MIB)
    memory.check_memory(3 * MIB, "v.tif: needs", "free some")
    with pytest.raises(InputError) as error:
        memory.check_memory(5 * 2**30, "v.tif: needs", "free some")
    assert str(error.value) == "v.tif: needs 5.0 GiB of memory and 3.0 MiB are free: free some"
