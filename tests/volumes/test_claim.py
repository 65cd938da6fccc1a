# SPDX-License-Identifier: Apache-2.0
"""One run at a time writes an output, the others are told, and what a killed one left is removed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scripts.errors import InputError
from scripts.volumes import claim
from scripts.volumes.claim import SILENCE, Claim, there_at_start
from scripts.volumes.partial_names import partial_name
from scripts.volumes.whole_file import whole_file

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
# Takes a claim, begins an unfinished file, and waits.
_HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scripts.volumes.claim import Claim
from scripts.volumes.partial_names import partial_name
path = Path(sys.argv[2])
folder = sys.argv[3] == "folder"
held = Claim(path, folder).take()
file = path / "model.pt" if folder else path
file.with_name(partial_name(file.name)).write_text("unfinished")
print("holds", flush=True)
time.sleep(600)
"""


@contextmanager
def another_run(path: Path, kind: str = "file") -> Iterator[subprocess.Popen]:
    """Another process that holds a claim."""
    words = [sys.executable, "-c", _HOLDER, str(BUNDLE), str(path), kind]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


def lock_in(folder: Path) -> Path:
    (lock,) = folder.glob(".*.lock")
    return lock


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_second_run_is_told_who_writes(tmp_path, kind):
    output = tmp_path / "new" / "out"
    with another_run(output, kind) as process:
        os.kill(process.pid, signal.SIGSTOP)  # it lives, though it does nothing
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError) as error:
            Claim(output, kind == "folder").take()
        message = str(error.value)
        assert message.startswith(f"{output}: process {process.pid} on ") and " since 20" in message
        assert "\n" not in message and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_run_left_is_removed(tmp_path, kind):
    output = tmp_path / "new" / "out"
    with another_run(output, kind) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert list(tmp_path.rglob("*partial*"))
        with Claim(output, kind == "folder"):
            assert not list(tmp_path.rglob("*partial*"))
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_unfinished_files_of_other_outputs_are_left_alone(tmp_path):
    with another_run(tmp_path / "other.tif"):
        (unfinished,) = tmp_path.glob("*partial*")
        with Claim(tmp_path / "mine.tif"), Claim(tmp_path, folder=True):
            assert unfinished.exists()


@pytest.mark.parametrize("silent, refused", [(SILENCE - 30, True), (SILENCE + 30, False)])
@pytest.mark.parametrize("locks", [True, False])
def test_run_on_another_host_lives_as_long_as_it_gives_signs(tmp_path, monkeypatch, silent, refused, locks):
    """Locks of the system may not reach there, and some file systems have none."""
    output = tmp_path / "out.tif"
    with Claim(output):
        lock = lock_in(tmp_path)
        content = json.loads(lock.read_text())
    lock.write_text(json.dumps({**content, "host": "far", "boot": "another" if locks else content["boot"]}))
    unfinished = tmp_path / partial_name(output.name)
    unfinished.write_text("unfinished")
    now = unfinished.stat().st_mtime
    os.utime(lock, (now - silent, now - silent))

    def flock(*_: object) -> None:
        if not locks:
            raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    if refused:
        with pytest.raises(InputError) as error:
            Claim(output).take()
        assert f"process {content['process']} on far has been writing it since" in str(error.value)
        assert f"known to be dead, delete {lock}" in str(error.value) and unfinished.exists()
        assert json.loads(lock.read_text())["host"] == "far"  # it is still theirs
    else:
        with Claim(output):
            assert not unfinished.exists()
        assert os.listdir(tmp_path) == []


def test_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "SIGN_OF_LIFE", 0.01)
    monkeypatch.setattr(claim, "_alive", None)
    with Claim(tmp_path / "out.tif"):
        lock = lock_in(tmp_path)
        os.utime(lock, (1, 1))
        waiting = threading.Event()
        for _ in range(1000):
            if lock.stat().st_mtime > 1:
                break
            waiting.wait(0.01)
        assert lock.stat().st_mtime > 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": "a"}'])
def test_damaged_lock_is_a_leftover(tmp_path, content):
    with Claim(tmp_path / "out.tif"):
        lock = lock_in(tmp_path)
    lock.write_text(content)
    os.utime(lock, (1, 1))
    with Claim(tmp_path / "out.tif"):
        assert json.loads(lock.read_text())["process"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_thread_that_holds_it_may_claim_again_and_others_may_not(tmp_path):
    said: list[str] = []

    def elsewhere() -> None:
        try:
            Claim(tmp_path / "out.tif").take()
        except InputError as error:
            said.append(str(error))

    (tmp_path / "link.tif").symlink_to("out.tif")
    with Claim(tmp_path / "out.tif"):
        with Claim(tmp_path / "link.tif"):
            pass
        lock = lock_in(tmp_path)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert f"process {os.getpid()} on" in said[0]
    assert not lock.exists()


def test_claim_that_is_dropped_ends(tmp_path):
    """As that of a run that ends in an exception: nothing calls ``release``."""
    held = Claim(tmp_path / "new" / "out.tif").take()
    assert lock_in(tmp_path / "new").exists()
    del held
    assert os.listdir(tmp_path) == []


def test_claim_that_was_lost_does_not_remove_the_lock_of_another(tmp_path):
    with Claim(tmp_path / "out.tif"):
        lock = lock_in(tmp_path)
        theirs = json.dumps({**json.loads(lock.read_text()), "token": "of another"})
        lock.write_text(theirs)
    assert lock.read_text() == theirs


def test_claim_remembers_what_was_there(tmp_path):
    output = tmp_path / "out.tif"
    with Claim(output):
        output.write_text("appears")
        assert not there_at_start(output)
    assert there_at_start(output)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, kind):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match="out: cannot be written .No space left on device.; free some space"):
            Claim(tmp_path / "new" / "folder" / "out", kind == "folder").take()
    assert os.listdir(tmp_path) == []


def test_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path, folder in ((tmp_path / "file" / "x.tif", False), (tmp_path / "file", True)):
        with pytest.raises(InputError) as error:
            Claim(path, folder).take()
        assert str(error.value).startswith(f"{path}: cannot be written") and "is a file" in str(error.value)
    with pytest.raises(InputError, match="File name too long.*give a shorter name"):
        Claim(tmp_path / ("a" * 256)).take()


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".tif", "\u00e9" * 123 + ".ome.tif", "\u5c42" * 82 + "b.nii.gz", "b" * 255]
)
def test_longest_names(tmp_path, name):
    assert 250 <= len(os.fsencode(name)) <= 255
    with Claim(tmp_path / name), whole_file(tmp_path / name) as partial:
        partial.write_text("1")
    assert os.listdir(tmp_path) == [name]
    with Claim(tmp_path / name, folder=False):
        with pytest.raises(InputError, match="appeared"), whole_file(tmp_path / name, replace=False) as partial:
            partial.write_text("2")
    assert len(os.listdir(tmp_path)) == 2 and (tmp_path / name).read_text() == "1"


@pytest.mark.parametrize("name", ["v.ome.tif", "v.OME.TIFF", "v.nii.gz", "v.tif", "model.pt", "scores.json", "none"])
def test_temporary_name_ends_like_the_file(name):
    first, second = partial_name(name), partial_name(name)
    assert first.endswith("partial" + name.lstrip("v") if name.startswith("v") else Path(name).suffix)
    assert first != second and first.startswith(".") and len(first) < 60
