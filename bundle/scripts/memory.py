# SPDX-License-Identifier: Apache-2.0
"""How much main memory a process may still take."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes of memory that this process can take: what the machine has left, within the limits of its control groups and shell."""
    of_the_machine = _kilobytes(_PROC / "meminfo", "MemAvailable")
    if of_the_machine is None:
        of_the_machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([of_the_machine, *_left_in_groups(), *_left_in_shell()]))


def _left_in_groups() -> Iterator[int]:
    """What each control group, as those of containers and batch systems, leaves of its limit; cached files do not count."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    places = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    for _, controllers, name in places:
        if controllers == "":
            root, limit_name, taken_name = _GROUPS, "memory.max", "anon"
        elif "memory" in controllers.split(","):
            root, limit_name, taken_name = _GROUPS / "memory", "memory.limit_in_bytes", "total_rss"
        else:
            continue
        folder = root / name.lstrip("/")
        for group in [folder, *folder.parents]:
            limit, taken = _number(group / limit_name), _entry(group / "memory.stat", taken_name)
            if limit is not None:
                yield limit - (taken or 0)
            if group == root:
                break


def _left_in_shell() -> Iterator[int]:
    """What ``ulimit -v`` leaves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - (_kilobytes(_PROC / "self" / "status", "VmSize") or 0)


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is no limit


def _entry(file: Path, name: str) -> int | None:
    """Number after a name at the beginning of a line."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words and words[0].rstrip(":") == name), None)


def _kilobytes(file: Path, name: str) -> int | None:
    value = _entry(file, name)
    return None if value is None else 1024 * value
