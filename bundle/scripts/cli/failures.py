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

"""What a run says when it cannot go on: one line, whatever the reason."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from scripts.cli.signals import Stopped
from scripts.errors import InputError, memory_shortage, one_line
from tqdm import tqdm

_BELOW_ALL_LEVELS = -1  # a log record of this level is shown by no handler
_CANNOT_WRITE = ("PytorchStreamWriter failed", "unexpected pos", "file write failed")  # of torch.save
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_SCRIPTS = Path(__file__).resolve().parents[1]

_unsaid: list[str] = []  # what ended threads that nobody waited for


def show_errors_in_one_line() -> None:
    """
    End a run that fails with one line on stderr, whatever the exception, and drop what MONAI and Ignite log about it.
    The warnings of the libraries, which a user cannot act on, are silenced.
    """
    sys.excepthook = _print_exception
    threading.excepthook = _keep_exception_of_thread
    make_record = logging.getLogRecordFactory()

    def make_quiet_record(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = make_record(*arguments, **keywords)
        if sys.exc_info()[1] is not None and not record.name.startswith("scripts."):
            record.levelno = (
                _BELOW_ALL_LEVELS  # while an exception is on its way, libraries log what they know about it
            )
        return record

    # the record factory, because the loggers of transforms and handlers do not exist yet
    logging.setLogRecordFactory(make_quiet_record)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(monai|torch|ignite)(\.|$)")
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def input_error(error: BaseException | None) -> InputError | None:
    """Return the innermost InputError among an exception and its causes."""
    found = [each for each in _chain(error) if isinstance(each, InputError)]
    return found[-1] if found else None


def explain(error: BaseException) -> str:
    """
    Return one line on an exception: what is wrong, and what to do.

    Args:
        error: any exception but Ctrl-C and signals.
    """
    user_error = input_error(error)
    if user_error is not None:
        return " ".join(str(user_error).split())
    for each in _chain(error):
        for explanation in (_short_of_memory(each), _trouble_with_file(each)):
            if explanation:
                return explanation
    *_, innermost = _causes(error)
    return (
        f"a fault of the program: {type(innermost).__name__}: {one_line(innermost)} ({_place(innermost)}); "
        "run it again with --debug true and report what that prints"
    )


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The replacement of ``sys.excepthook``; the exit status is Python's own, or 128 and the number of a signal."""
    _unsaid.clear()
    try:
        for bar in list(getattr(tqdm, "_instances", [])):
            bar.close()  # an open bar would redraw itself below the message
        if isinstance(error, BrokenPipeError):  # of `run help | head`: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif isinstance(error, Stopped):
            print(f"\nstopped by {error.signal.name}; run the same command again to go on", file=sys.stderr)
        elif isinstance(error, KeyboardInterrupt):
            # on a new line, after the progress bar
            print("\ninterrupted; run the same command again to go on", file=sys.stderr)
        else:
            print(f"error: {explain(error)}", file=sys.stderr)
    except OSError:
        pass  # the terminal is gone
    if isinstance(error, Stopped):
        sys.exit(128 + error.signal)


def _keep_exception_of_thread(failed: threading.ExceptHookArgs) -> None:
    """
    The replacement of ``threading.excepthook``: who waits for the thread says it, otherwise it is said at the end.
    """
    if failed.exc_value is None:
        return
    if not _unsaid:
        atexit.register(_say_the_unsaid)
    _unsaid.append(explain(failed.exc_value))


def _say_the_unsaid() -> None:
    for text in dict.fromkeys(_unsaid):
        print(f"warning: {text}", file=sys.stderr)
    _unsaid.clear()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what caused it, and what was being dealt with at the time."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it says it was caused by."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


def _short_of_memory(error: BaseException) -> str:
    advice = "give a smaller --tile, --patch_size, --batch_size or network, or cut the volume"
    shortage = memory_shortage(error)
    if shortage is None:
        return ""
    if shortage.of_gpu:
        return f"the memory of the GPU does not suffice ({shortage.tried}): {advice}, or --device cpu"
    tried = f" ({shortage.tried})" if shortage.tried else ""
    return f"the memory of this machine does not suffice{tried}: {advice}"


def _trouble_with_file(error: BaseException) -> str:
    text = one_line(error)
    if isinstance(error, RuntimeError) and any(words in text for words in _CANNOT_WRITE):
        why = text.split("] ")[-1]
        return f"a file cannot be written ({why}): is the disk full? make room and run the same command again to go on"
    if not isinstance(error, OSError):
        return ""
    name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    reason = error.strerror or text
    if error.errno in _FULL:
        return f"{name}the disk is full ({reason}): make room and run the same command again to go on"
    if error.errno in _FORBIDDEN:
        return f"{name}cannot be read or written ({reason}): change the permissions, or choose another file or folder"
    return f"{name}cannot be read or written ({reason})"


def _place(error: BaseException) -> str:
    """Return file and line of the bundle's code that an exception comes through last, or where it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(_SCRIPTS)]
    if not frames:
        return "from nowhere in the code"
    last = own[-1] if own else frames[-1]
    file = Path(last.filename)
    return f"{file.resolve().relative_to(_SCRIPTS.parent) if own else file.name}, line {last.lineno}"
