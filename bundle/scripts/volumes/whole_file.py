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

"""Files that appear under their final name only once they are complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.partial_names import partial_name, remove
from scripts.volumes.paths import cannot_be_written, suffix_of, target_of

_LONGEST_NAME = 255  # bytes, on every file system of today
# where a file system has no hard links
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
_listeners: list[Callable[[Path, Path], None]] = []


@contextmanager
def told_before_move(tell: Callable[[Path, Path], None]) -> Iterator[None]:
    """Have ``tell(partial, path)`` called for each file once it is complete, right before it is moved to its name.

    A record that ``tell`` writes is on the disk before the file is, at whatever moment the run is killed.
    """
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


@contextmanager
def whole_file(path: str | os.PathLike, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to, and move the file to ``path`` at the end; missing folders are made.

    Args:
        path: the file. A symbolic link stays one: the file that it points to is written.
        replace: whether a file that exists at the end is replaced. If not, it is left alone, and what was written is
            kept beside it under another name.

    Yields:
        A temporary path in the same folder, with the suffix of ``path``. Where the context ends in an exception, that
        file is deleted.

    Raises:
        InputError: the file cannot be written, or was kept under another name.
    """
    target = target_of(path)
    partial = target.with_name(partial_name(target.name, suffix_of(Path(path).name)))  # same folder: the move is atomic
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        move_whole(partial, path, replace)
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        # The parent may be a file, which is the error reported above.
        with suppress(OSError):
            remove(partial)


def move_whole(partial: Path, path: str | os.PathLike, replace: bool) -> None:
    """Move a complete file, or folder of a store, to its name.

    Args:
        partial: in the folder of ``path``, or below it.
        path: the name. A symbolic link stays one: what it points to is written.
        replace: whether what has that name is replaced. If not, it is left alone, and the new one is kept beside it
            under another name.

    Raises:
        InputError: it was kept under another name.
        OSError: it cannot be moved.
    """
    target = target_of(path)
    for tell in _listeners:
        tell(partial, target)
    if replace and partial.is_dir() and target.is_dir():  # no call replaces a folder that is not empty
        before = target.with_name(partial_name(target.name, ".replaced"))
        os.rename(target, before)
        os.rename(partial, target)
        remove(before)
    elif replace and not partial.is_dir() and not target.is_dir():
        os.replace(partial, target)
    elif not _move_beside_none(partial, target):
        raise InputError(
            f"{path}: appeared while this run was at work and was left alone; the finished result is "
            f"{_keep_beside(partial, target)}"
        )


def _move_beside_none(partial: Path, target: Path) -> bool:
    """Move a file or a folder unless its new name is taken; return whether it was moved."""
    if partial.is_dir():
        if os.path.lexists(target):
            return False
        try:
            os.rename(partial, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # it appeared between the two calls
                return False
            raise
        return True
    try:
        os.link(partial, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # reserves the name
    except FileExistsError:
        return False
    os.replace(partial, target)
    return True


def _keep_beside(partial: Path, target: Path) -> Path:
    """Move a file to the first free name that resembles ``target``, and return it."""
    suffix = suffix_of(target.name)
    stem = target.name[: len(target.name) - len(suffix)]
    number = 1
    while True:
        end = f"_{number}{suffix}"
        room = _LONGEST_NAME - len(os.fsencode(end))
        shortened = os.fsencode(stem)[:room].decode(errors="ignore") if len(os.fsencode(stem)) > room else stem
        free = target.with_name(shortened + end)
        if _move_beside_none(partial, free):
            return free
        number += 1


def write_whole(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill the file that :func:`whole_file` gives for ``path``."""
    with whole_file(path) as partial:
        write(partial)
