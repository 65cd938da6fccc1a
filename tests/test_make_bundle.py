# SPDX-License-Identifier: Apache-2.0
"""The zip to publish holds what is committed, byte for byte the same each time, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from release import make_bundle

LARGE_FILES = "large_files:\n  - path: models/model.pt\n    url: ''\n    hash_val: {}\n    hash_type: sha256\n"
ZIP = f"dist/{make_bundle.NAME}_v1.2.3.zip"


def git(folder: Path, *words: str) -> None:
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *words], cwd=folder, env={**os.environ, **author}, check=True, capture_output=True)


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> Path:
    """A committed bundle of a few small files, which the program takes for its own."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    files = {
        "configs/metadata.json": '{"version": "1.2.3"}',
        "models/model.pt": "weights",
        "large_files.yml": LARGE_FILES.format(hashlib.sha256(b"weights").hexdigest()),
    }
    for name, text in files.items():
        path = tmp_path / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".gitignore").write_text("*.pyc\ndist\n")
    (tmp_path / "README.md").write_text("of the repository, not of the bundle")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    monkeypatch.setattr(make_bundle, "REPOSITORY", tmp_path)
    monkeypatch.setattr(make_bundle, "BUNDLE", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_zip_holds_the_committed_bundle(bundle):
    (bundle / "ignored.pyc").write_text("x")
    (bundle.parent / "README.md").write_text("changed, outside the bundle")
    make_bundle.main()
    with zipfile.ZipFile(bundle.parent / ZIP) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        assert names == {
            f"{make_bundle.NAME}/{name}" for name in ("configs/metadata.json", "models/model.pt", "large_files.yml")
        }
        assert archive.read(f"{make_bundle.NAME}/models/model.pt") == b"weights"


def test_a_commit_gives_the_same_bytes_wherever_it_is(bundle, tmp_path, monkeypatch):
    make_bundle.main()
    first = (tmp_path / ZIP).read_bytes()
    git(tmp_path, "clone", ".", "elsewhere")
    monkeypatch.setattr(make_bundle, "REPOSITORY", tmp_path / "elsewhere")
    monkeypatch.setattr(make_bundle, "BUNDLE", tmp_path / "elsewhere" / "bundle")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    make_bundle.main()
    assert (tmp_path / "elsewhere" / ZIP).read_bytes() == first


@pytest.mark.parametrize("name", ["new.py", "models/model.pt", "configs/metadata.json"])
def test_what_is_not_committed_is_refused(bundle, name):
    (bundle / name).write_text("weights" if name == "new.py" else '{"version": "1.2.3", "new": 1}')
    with pytest.raises(SystemExit) as stop:
        make_bundle.main()
    told = "large_files.yml had hashes of other weights" if name.endswith(".pt") else f"bundle/{name} is not committed"
    assert told in str(stop.value)
    assert not (bundle.parent / ZIP).exists()


def test_hashes_follow_the_weights(bundle):
    (bundle / "models" / "model.pt").write_text("other weights")
    with pytest.raises(SystemExit, match="commit it with the weights"):
        make_bundle.main()
    expected = LARGE_FILES.format(hashlib.sha256(b"other weights").hexdigest())
    assert (bundle / "large_files.yml").read_text() == expected
    git(bundle, "commit", "-am", "new weights")
    make_bundle.main()
    assert (bundle.parent / ZIP).is_file()


def test_a_folder_that_is_no_checkout_is_told_in_one_line(bundle):
    shutil.rmtree(bundle.parent / ".git")
    with pytest.raises(SystemExit, match=r"^error: git status: .*not a git repository"):
        make_bundle.main()
