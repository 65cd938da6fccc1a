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

"""Paths of inputs and outputs: what they stand for, and whether a file can be written there."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.errors import InputError, one_line

_MOST_STAMPED = 10_000  # files and folders of an array: 0.1 s on a local disk
_LONGEST_SUFFIX = 12  # what follows the last dot of a longer name is no suffix
_SUFFIX_OF_TWO = re.compile(r"\.(ome\.tiff?|nii\.gz)$", re.IGNORECASE)
_ADVICE = {
    errno.ENOSPC: "free some space, and run the same command again",
    errno.EDQUOT: "free some of your quota, and run the same command again",
    errno.EFBIG: "it is larger than a file may be there (ulimit -f tells, or the file system); choose another disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its links lead in a circle; give the name of a file",
    errno.ENOTDIR: "a part of its path is a file and not a folder; give another folder",
    errno.EISDIR: "there is a folder of that name; give another name",
    errno.ENOENT: "its folder, or what was written of it, was removed in the meantime; run the same command again",
}
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def cannot_be_written(path: str | os.PathLike, error: OSError) -> InputError:
    """Return the InputError for an operating system error about an output."""
    reason = error.strerror or one_line(error)
    return InputError(
        f"{path}: cannot be written ({reason}); {_ADVICE.get(error.errno or 0, 'choose a folder you may write to')}"
    )


def as_path(path: Any) -> Path:
    """
    Return a path from the command line, which turns a name of digits into a number and a missing value into True.

    Raises:
        InputError: it is not a path.
    """
    if path is None or path == "" or isinstance(path, bool):
        raise InputError("a file name is needed, but none was given")
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a file name is needed, not {path!r}; write a name of digits as ./{path}")
    return Path(path)


def target_of(path: str | os.PathLike) -> Path:
    """
    Return the file that an output names: for a symbolic link its target, which need not exist yet.

    Raises:
        InputError: links that lead in a circle; a name that is too long; a named pipe, a device or a socket.
    """
    path = as_path(path)
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            kind = stat.S_IFMT(os.stat(path).st_mode)
            if kind in _KINDS:
                raise InputError(f"{path}: is {_KINDS[kind]} and cannot be an output; give the name of a file")
        target = Path(os.path.realpath(path))
        if os.path.islink(target):  # realpath stops where links lead in a circle
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return target
    except OSError as error:
        raise cannot_be_written(path, error) from error
    except ValueError as error:  # a null byte
        raise InputError(f"{str(path)!r}: cannot be written ({one_line(error)}); give the name of a file") from error


def nearest_folder(path: str | os.PathLike, shown: str | os.PathLike | None = None) -> Path:
    """
    Return the innermost folder above a file that exists.

    Args:
        path: the file.
        shown: path that the error names, ``path`` if None.

    Raises:
        InputError: a part of the path is a file.
    """
    folder = target_of(path).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(
            f"{path if shown is None else shown}: cannot be written, because {folder} is a file and not a folder"
        )
    return folder


def check_place(path: str | os.PathLike, shown: str | os.PathLike | None = None) -> None:
    """
    Check that a file can be written, by a trial in the innermost folder above it that exists.

    Args:
        path: the file.
        shown: path that the error names, ``path`` if None.

    Raises:
        InputError: it cannot be.
    """
    shown = path if shown is None else shown
    folder = nearest_folder(path, shown)
    try:
        # a trial, for permissions say nothing about read-only file systems or the superuser
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = _ADVICE[error.errno] if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose one you may write to"
        raise InputError(f"{shown}: cannot be written to the folder {folder} ({error.strerror}); {advice}") from error


def suffix_of(name: str) -> str:
    """Return the suffix of a file name, with both parts of ``.ome.tif`` and ``.nii.gz``."""
    double = _SUFFIX_OF_TWO.search(name)
    suffix = double.group() if double else Path(name).suffix
    return suffix if len(os.fsencode(suffix)) <= _LONGEST_SUFFIX else ""


def stamp(path: Path, parts: Sequence[Path] = ()) -> tuple:
    """
    Return a value that changes when the volume is changed while the process runs.

    Args:
        path: file, folder of slices, or pattern of slices.
        parts: of a volume that is not that alone: files, and folders of chunks. Of these folders the first entries are
            looked at, those above before those below, so that an array of millions of files is not walked through:
            there a chunk that is made, removed or replaced as a file changes the folder that it lies in, and one that is
            written over in place may go unnoticed.
    """
    if parts:
        entries = [each for part in parts for each in itertools.islice(_entries(part), _MOST_STAMPED)]
        return tuple((str(each), *_state(each)) for each in (path, *parts, *entries))
    if path.is_dir():
        files = sorted(path.iterdir())
    else:
        files = [path] if path.exists() else sorted(path.parent.glob(path.name))
    return tuple((file.name, *_state(file)) for file in files)


def _state(file: Path) -> tuple[int, ...]:
    """What tells a file from another of its name; nothing where there is none."""
    try:
        state = file.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, level by level."""
    pending = deque([folder])
    while pending:
        with suppress(OSError), os.scandir(pending.popleft()) as entries:
            for entry in entries:
                yield Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
