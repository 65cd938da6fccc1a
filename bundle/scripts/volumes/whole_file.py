# SPDX-License-Identifier: Apache-2.0
"""Files that appear under their name only once they are complete."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.errors import InputError, one_line

_LONGEST_NAME = 255  # bytes, on every file system of today
_LONGEST_SUFFIX = 12  # what follows the last dot of a longer name is no suffix
_SUFFIX_OF_TWO = re.compile(r"\.(ome\.tiff?|nii\.gz)$", re.IGNORECASE)
# where a file system has no hard links
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)
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
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def cannot_be_written(path: str | os.PathLike, error: OSError) -> InputError:
    """Return what to raise for an error of the system about an output."""
    reason = error.strerror or one_line(error)
    return InputError(
        f"{path}: cannot be written ({reason}); {_ADVICE.get(error.errno or 0, 'choose a folder you may write to')}"
    )


def as_path(path: Any) -> Path:
    """
    Return the path; the command line turns a name of digits into a number and a missing value into True.

    Raises:
        InputError: it is no path.
    """
    if path is None or path == "" or isinstance(path, bool):
        raise InputError("a file name is needed, but none was given")
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a file name is needed, not {path!r}; write a name of digits as ./{path}")
    return Path(path)


def target_of(path: str | os.PathLike) -> Path:
    """
    Return the file that an output names: a symbolic link stands for the file that it points to, which need not be there yet.

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
    Return the nearest folder above a file that is there.

    Args:
        path: the file.
        shown: what the error names in its place.

    Raises:
        InputError: what is there is no folder.
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
    Check that a file can be written, by a trial in the nearest folder that is there.

    Args:
        path: the file.
        shown: what the error names in its place.

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


def digest_of(name: str) -> str:
    """Return a short name for a file name of any length and script."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def suffix_of(name: str) -> str:
    """Return how a file name ends, with both parts of ``.ome.tif`` and ``.nii.gz``."""
    double = _SUFFIX_OF_TWO.search(name)
    suffix = double.group() if double else Path(name).suffix
    return suffix if len(os.fsencode(suffix)) <= _LONGEST_SUFFIX else ""


def partial_name(name: str, suffix: str | None = None) -> str:
    """Return a temporary name for a file, which no other has and which ends like it."""
    return f".{digest_of(name)}.{secrets.token_hex(4)}.partial{suffix_of(name) if suffix is None else suffix}"


def partial_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the temporary files that lie in a folder, each with the :func:`digest_of` the name that it was to get."""
    for entry in os.listdir(folder):
        match = re.match(r"\.([0-9a-f]{16})\.[0-9a-f]{8}\.partial", entry)
        if match:
            yield folder / entry, match.group(1)


_listeners: list[Callable[[Path, Path], None]] = []


@contextmanager
def told_before_move(tell: Callable[[Path, Path], None]) -> Iterator[None]:
    """Have ``tell(partial, path)`` called whenever a file is complete and has not appeared under its name yet.

    What has to be known of a file, in whatever moment the run is killed, is written there.
    """
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


@contextmanager
def whole_file(path: str | os.PathLike, replace: bool = True) -> Iterator[Path]:
    """Give a name beside ``path`` to write to, and move that file into place at the end; missing folders are made.

    Args:
        path: the file. A symbolic link stays one: the file that it points to is written.
        replace: whether a file that is there at the end is replaced. If not, it is left alone, and what was written is kept beside
            it under another name.

    Yields:
        A temporary path in the same folder whose name ends like that of ``path``. If the block ends in an exception, what is
        there is deleted.

    Raises:
        InputError: if the file cannot be written; also where it was kept under another name.
    """
    target = target_of(path)
    partial = target.with_name(partial_name(target.name, suffix_of(Path(path).name)))  # same folder: the move is atomic
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for tell in _listeners:
            tell(partial, target)
        if replace and not target.is_dir():
            os.replace(partial, target)
        elif not _move_beside_none(partial, target):
            raise InputError(
                f"{path}: appeared while this run was at work and was left alone; the finished result is "
                f"{_keep_beside(partial, target)}"
            )
    except OSError as error:
        raise cannot_be_written(path, error) from error
    finally:
        # The parent may be a file, which is the error reported above.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _move_beside_none(partial: Path, target: Path) -> bool:
    """Move a file to a name unless something is there; returns whether it was moved."""
    try:
        os.link(partial, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # the name is ours from here on
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


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all.

    Infinity, which a perfect slice scores and JSON does not know, is written as the string "inf", NaN as null.

    Args:
        path: the file; replaced when it exists.
        document: nested mappings and sequences of numbers (NumPy's too), strings, truth values and None.

    Raises:
        InputError: if the file cannot be written.
    """
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    """The same value in types JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, tensors
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
