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

"""Claims on outputs: one run at a time writes a file or works in a folder, and removes what a killed one left."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.volumes.partial_names import digest_of, partial_files, remove
from scripts.volumes.paths import cannot_be_written, check_place, target_of

SIGN_OF_LIFE = 10.0
"""Seconds between two signs of life of a run."""
SILENCE = 120.0
"""Seconds without a sign of life after which a run on another host counts as dead."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_LOCK_OF_FOLDER = ".run.lock"


@dataclass
class _Hold:
    """A lock file that this process holds."""

    lock: Path
    descriptor: int
    owner: dict[str, Any]
    there: bool
    made: list[Path]
    thread: int = field(default_factory=threading.get_ident)
    process: int = field(default_factory=os.getpid)
    count: int = 0


_holds: dict[Path, _Hold] = {}
_guard = threading.RLock()
_alive: threading.Thread | None = None  # gives the signs of life


class Claim:
    """
    A claim on an output, held from :meth:`take` to :meth:`release`, for a ``with`` block, or until the process ends.

    While it is held, another run that claims the same output gets an error that names the first. Taking it removes the
    unfinished files of a killed run.

    The lock is a small file beside the output, or inside a folder that is claimed, with the host and the process. The
    file lock on it (``flock``) is released when the process ends. Such locks may not reach other hosts; for these, the
    modification time of the file is a sign of life. The same thread may claim an output again, as a config does that
    runs inside another.

    Args:
        path: file or folder. A symbolic link stands for its target; missing folders are made, and removed again if they
            stay empty.
        folder: whether it is a folder.
    """

    def __init__(self, path: str | os.PathLike, folder: bool = False) -> None:
        self.path = path
        self.folder = folder
        self._end: weakref.finalize | None = None

    def take(self) -> Claim:
        """
        Claim the output.

        Raises:
            InputError: another run has claimed it, or its folder cannot be written to.
        """
        with _guard:
            lock = _lock_of(self.path, self.folder)
            hold = _holds.get(lock)
            if hold is not None and hold.process != os.getpid():  # inherited by a fork
                hold = None
            if hold is None:
                hold = _take(self.path, lock, self.folder)
                _holds[lock] = hold
                _give_signs_of_life()
            elif hold.thread != threading.get_ident():
                raise _refusal(self.path, hold.owner)
            hold.count += 1
            self._end = weakref.finalize(self, _let_go, hold)
        return self

    def release(self) -> None:
        """Release the output; without effect where it is not held."""
        if self._end is not None:
            self._end()

    def __enter__(self) -> Claim:
        return self.take()

    def __exit__(self, *_: object) -> None:
        self.release()


def there_at_start(path: str | os.PathLike) -> bool:
    """Return whether a file existed when this process claimed it, or exists now if it has no claim."""
    hold = _holds.get(_lock_of(path, folder=False))
    return hold.there if hold is not None and hold.process == os.getpid() else os.path.exists(path)


def _lock_of(path: str | os.PathLike, folder: bool) -> Path:
    target = target_of(path)
    return target / _LOCK_OF_FOLDER if folder else target.with_name(f".{digest_of(target.name)}.lock")


def _take(path: str | os.PathLike, lock: Path, folder: bool) -> _Hold:
    """Take a lock that this process does not hold yet, and remove what a killed run left."""
    check_place(lock, shown=path)
    made = [parent for parent in lock.parents if not parent.exists()]
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor, locked = _open_locked(path, lock)
        try:
            found = _owner_in(descriptor)
            elsewhere = not locked or found.get("boot") != _boot()
            if found and elsewhere and _silence_of(descriptor, lock.parent) < SILENCE:
                raise _refusal(path, found, lock)
            owner = {
                "host": socket.gethostname(),
                "process": os.getpid(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "boot": _boot(),
                "token": secrets.token_hex(8),
            }
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(owner).encode())
            _remove_leftovers(lock, folder)
        except BaseException as error:
            # An interrupt may come at this very point. The lock of another run is left alone.
            if locked and not isinstance(error, InputError):
                lock.unlink(missing_ok=True)
            os.close(descriptor)
            raise
    except OSError as error:
        _remove_empty(made)
        raise cannot_be_written(path, error) from error
    except BaseException:
        _remove_empty(made)
        raise
    return _Hold(lock, descriptor, owner, not folder and os.path.lexists(target_of(path)), made)


def _open_locked(path: str | os.PathLike, lock: Path) -> tuple[int, bool]:
    """Open a lock file and lock it; return its descriptor, and whether the file system supports locks."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner_in(descriptor)
            os.close(descriptor)
            raise _refusal(path, owner) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            locked = False
        try:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock, follow_symlinks=False)):
                    return descriptor, locked
        except BaseException:  # a signal may come right here
            if locked:
                lock.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)  # another run removed it between the two calls


def _owner_in(descriptor: int) -> dict[str, Any]:
    """Return what a lock file says about the run that holds or held it, an empty dictionary if it is damaged."""
    try:
        owner = json.loads(os.pread(descriptor, 2**16, 0))
    except (ValueError, OSError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _silence_of(descriptor: int, folder: Path) -> float:
    """Return the seconds since the last sign of life by the clock of the file system: those of hosts differ."""
    with tempfile.TemporaryFile(dir=folder) as now:
        return os.fstat(now.fileno()).st_mtime - os.fstat(descriptor).st_mtime


def _refusal(path: str | os.PathLike, owner: dict[str, Any], lock: Path | None = None) -> InputError:
    run = f"process {owner['process']} on {owner['host']}" if {"process", "host"} <= owner.keys() else "another run"
    since = f" since {owner['since']}" if "since" in owner else ""
    dead = f"; if that run is known to be dead, delete {lock}" if lock is not None else ""
    return InputError(f"{path}: {run} has been writing it{since}: wait for its end, or give another name{dead}")


def _remove_leftovers(lock: Path, folder: bool) -> None:
    """Remove the unfinished files of a killed run, except for those that another run has a claim of its own on."""
    for partial, digest in list(partial_files(lock.parent)):
        if not (lock.parent / f".{digest}.lock").exists() if folder else lock.name == f".{digest}.lock":
            remove(partial)


def _let_go(hold: _Hold) -> None:
    """Drop one of the claims on a lock, and with the last one the lock."""
    if hold.process != os.getpid():
        return
    with _guard:
        hold.count -= 1
        if hold.count:
            return
        _holds.pop(hold.lock, None)
        with suppress(OSError):
            # a process that was suspended for long may have lost it to another run
            if _owner_in(hold.descriptor).get("token") == hold.owner["token"] and os.path.samestat(
                os.fstat(hold.descriptor), os.stat(hold.lock, follow_symlinks=False)
            ):
                hold.lock.unlink()
        os.close(hold.descriptor)
        _remove_empty(hold.made)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders from the innermost outwards up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _give_signs_of_life() -> None:
    global _alive
    if _alive is None or not _alive.is_alive():  # a fork does not inherit threads
        _alive = threading.Thread(target=_keep_giving, name="signs of life", daemon=True)
        _alive.start()


def _keep_giving() -> None:
    while True:
        time.sleep(SIGN_OF_LIFE)
        with _guard:
            for hold in list(_holds.values()):
                with suppress(OSError):
                    if hold.process == os.getpid():
                        os.utime(hold.descriptor)


def _boot() -> str:
    """Return what identifies the running system, which is as far as file locks reach; two hosts may share a name."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()
