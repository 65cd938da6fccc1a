# SPDX-License-Identifier: Apache-2.0
"""
A Python that has imported MONAI and forks itself for each command, for the tests start hundreds of commands and MONAI
takes seconds to import. A command runs in a process of its own, as ``python -m monai.bundle`` would: own arguments,
folder, environment, output, signals and exit status; nothing of the bundle is imported before. Only what libraries read
from the environment when they are imported is that of the tests' process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

MODULE = "monai.bundle"


class Process:
    """A running command."""

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        """
        Start ``python -m monai.bundle`` with arguments.

        Args:
            arguments: what follows the module's name.
            cwd: folder to run in.
            env: environment.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="command-")
        names = [str(Path(self._folder.name, name)) for name in ("stdout", "stderr")]
        self._files = [Path(name) for name in names]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(_server())
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "output": names}
        self._stream = self._socket.makefile("rw")
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        self.pid = int(self._stream.readline())

    def running(self) -> bool:
        """Whether the command has not yet ended."""
        return not select.select([self._socket], [], [], 0)[0]

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the command has ended."""
        if self.running():
            os.kill(self.pid, number)

    def finish(self, timeout: float) -> tuple[int, str, str]:
        """
        Wait for the end.

        Returns:
            Exit status (negative: the signal that ended it), what was printed on stdout, and on stderr.

        Raises:
            subprocess.TimeoutExpired: it takes longer than ``timeout`` seconds; it is killed.
        """
        late = not select.select([self._socket], [], [], timeout)[0]
        if late:
            os.kill(self.pid, signal.SIGKILL)
        status = int(self._stream.readline())
        stdout, stderr = (file.read_bytes().decode(errors="surrogateescape") for file in self._files)
        self._stream.close()
        self._socket.close()
        self._folder.cleanup()
        if late:
            raise subprocess.TimeoutExpired(MODULE, timeout, stdout, stderr)
        return status, stdout, stderr


@cache
def _server() -> str:
    """Start the process that forks, which ends with this one; returns the name of its socket."""
    folder = tempfile.mkdtemp(prefix="warm-")
    name = str(Path(folder, "socket"))
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    process = subprocess.Popen([sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert process.stdin is not None and process.stdout is not None

    def stop() -> None:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        Path(name).unlink(missing_ok=True)
        Path(folder).rmdir()

    atexit.register(stop)
    assert process.stdout.readline() == b"ready\n"
    return name


def _serve(name: str) -> None:
    """Fork at every request, until stdin is closed; returns in the process that is to run a command."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the tests
    print("ready", flush=True)
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stream = connection.makefile("rw")
        request = json.loads(stream.readline())
        pid = os.fork()
        if pid:  # a supervisor, for only the parent of a process learns how it ended
            stream.write(f"{pid}\n")
            stream.flush()
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            stream.write(f"{status}\n")
            stream.flush()
            os._exit(0)
        stream.close()
        connection.close()
        _become(request)
        return


def _become(request: dict) -> None:
    """Make this process what a command would find."""
    for signals in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signals, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in enumerate(request["output"], start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = [MODULE, *request["arguments"]]


if __name__ == "__main__":
    import runpy

    import monai.bundle  # noqa: F401

    _serve(sys.argv[1])
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
