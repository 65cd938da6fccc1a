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

"""How much memory is free, asked before it is taken."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from humanize import naturalsize
from scripts.errors import InputError

_GROUPS = Path("/sys/fs/cgroup")
_NAMES = (  # of the limit, of what is used, and of the cache of files in that: of cgroup v2 and v1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Return the bytes that this process can still allocate: what is free on the machine, or less under a limit."""
    return max(0, min(_limits()))


def check_memory(needed: float, what: str, advice: str) -> None:
    """
    Check that there is enough memory, before it is allocated.

    Args:
        needed: bytes.
        what: what needs them; the beginning of the error.
        advice: what to do about it; the end of the error.

    Raises:
        InputError: there is not.
    """
    free = free_memory()
    if needed > free:
        raise InputError(
            f"{what} {naturalsize(needed, binary=True)} of memory and {naturalsize(free, binary=True)} are free: "
            f"{advice}"
        )


def _limits() -> Iterator[int]:
    """Yield the bytes left under each limit: machine, control groups (a container, a Slurm job), ``ulimit -v``."""
    yield psutil.virtual_memory().available
    for folder in _control_groups():
        for most, used, cache in _NAMES:
            with suppress(OSError, ValueError):  # "max" is no limit
                limit, taken = (int((folder / name).read_text()) for name in (most, used))
                with suppress(OSError, ValueError):  # the kernel gives the cache of files back
                    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    taken -= int(statistics.get(cache, 0))
                yield limit - taken
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - psutil.Process().memory_info().vms


def _control_groups() -> Iterator[Path]:
    """Yield the folders of the control groups of this process and their parents, whose limits psutil does not read."""
    yield from (_GROUPS, _GROUPS / "memory")
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            root = _GROUPS / "memory" if "memory" in controllers.split(",") else _GROUPS
            folder = root / place.lstrip("/")
            while folder != root and root in folder.parents:
                yield folder
                folder = folder.parent
