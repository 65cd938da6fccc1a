# SPDX-License-Identifier: Apache-2.0
"""How much memory there is, asked before it is taken."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scripts.errors import InputError

_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Return the bytes that this process can still take: what is free on the machine, or less where the process is limited to less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([total, *_limits()]))


def check_memory(needed: float, what: str, advice: str) -> None:
    """
    Check, before it is taken, that memory suffices.

    Args:
        needed: bytes.
        what: needs them, the begin of the error.
        advice: what to do about it, the end of the error.

    Raises:
        InputError: it does not.
    """
    free = free_memory()
    if needed > free:
        raise InputError(f"{what} {gib(needed)} GiB of memory and {gib(free)} are free: {advice}")


def gib(count: float) -> str:
    """Return a number of bytes in GiB with three digits."""
    return f"{count / 2**30:.3g}"


def _limits() -> Iterator[int]:
    """What is free by each of those who limit it, for the ones that this system has."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    for folder in _groups():
        for most, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):  # "max" is no limit
                limit, taken = (int((folder / name).read_text()) for name in (most, used))
                with suppress(OSError, ValueError):  # the cache of files makes room
                    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    taken -= int(statistics.get(cache, 0))
                yield limit - taken
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * os.sysconf("SC_PAGE_SIZE")


def _groups() -> Iterator[Path]:
    """Folders of the control groups that this process may be in, with those around them."""
    yield from (_GROUPS, _GROUPS / "memory")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            root = _GROUPS / "memory" if "memory" in controllers.split(",") else _GROUPS
            folder = root / place.lstrip("/")
            while folder != root and root in folder.parents:
                yield folder
                folder = folder.parent
