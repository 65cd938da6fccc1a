# SPDX-License-Identifier: Apache-2.0
"""Files that appear under their name only once they are complete."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.errors import InputError, one_line

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
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside ``path`` to write to, and move that file into place at the end; missing folders are made.

    Args:
        path: the file; replaced when it exists.

    Yields:
        A temporary path in the same folder whose name ends like that of ``path``. If the block ends in an exception, what is
        there is deleted.

    Raises:
        InputError: if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")  # same folder: the move is atomic
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for tell in _listeners:
            tell(partial, path)
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise InputError(f"{path}: cannot be written ({reason}); choose a folder you may write to") from error
    finally:
        # The parent may be a file, which is the error reported above.
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)


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
