# SPDX-License-Identifier: Apache-2.0
"""Complete writes at a position of a file."""

from __future__ import annotations

import os


def write_all(file: int, data: bytes | memoryview, place: int) -> None:
    """
    Write all of the data, where a single ``os.pwrite`` may write a part.

    Args:
        file: descriptor of a file that is open for writing.
        data: to write.
        place: byte of the file where the data begins.

    Raises:
        OSError: the disk is full, for instance.
    """
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(file, rest, place)
        rest, place = rest[written:], place + written
