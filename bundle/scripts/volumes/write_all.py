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

"""Complete writes at a position of a file, and room for them beforehand."""

from __future__ import annotations

import errno
import os

_CANNOT_ALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # of file systems without allocation


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


def take_room(file: int, size: int) -> None:
    """
    Give a file its final length, and allocate its space where the file system can.

    Args:
        file: descriptor of a file that is open for writing.
        size: bytes.

    Raises:
        OSError: the disk has no room, for instance.
    """
    os.ftruncate(file, size)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_ALLOCATE:
            raise
