# SPDX-License-Identifier: Apache-2.0
"""Writing at a place of a file, however many calls of the system it takes."""

from __future__ import annotations

import os


def write_all(file: int, data: bytes | memoryview, place: int) -> None:
    """
    Write all of the data; a single ``os.pwrite`` may write less.

    Args:
        file: descriptor of a file that is open for writing.
        data: to write.
        place: byte of the file where it begins.

    Raises:
        OSError: the disk is full, for instance.
    """
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written
