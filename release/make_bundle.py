# SPDX-License-Identifier: Apache-2.0
"""Writes the zip that would be published: ``dist/microscopy_axial_super_resolution_v<version>.zip``.

``make bundle`` runs it. It first brings the hashes in ``bundle/large_files.yml`` up to date with the weights. Needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE = REPOSITORY / "bundle"
NAME = "microscopy_axial_super_resolution"
WRITTEN_BY_RUNS = {"__pycache__", "eval", "runs", ".DS_Store"}
DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal files give equal bytes


def git(*words: str) -> list[str] | None:
    """Paths below ``bundle/`` that ``git ls-files`` gives, or None without git or outside a checkout."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return None
    listing = subprocess.run(["git", "ls-files", "-z", *words], cwd=BUNDLE, capture_output=True)
    return sorted(filter(None, os.fsdecode(listing.stdout).split("\0"))) if listing.returncode == 0 else None


def bundle_files() -> list[str]:
    """The bundle's own files, sorted: what git does not ignore; without git, all but what runs and tools write there."""
    names = git("--cached", "--others", "--exclude-standard")
    if names is None:
        below = (path.relative_to(BUNDLE) for path in BUNDLE.rglob("*"))
        names = sorted(str(path) for path in below if not WRITTEN_BY_RUNS.intersection(path.parts))
    return [name for name in names if (BUNDLE / name).is_file()]


def write_zip(path: Path, names: Iterable[str]) -> None:
    """Write files of the bundle below the folder ``NAME``; equal files give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{NAME}/{Path(name).as_posix()}", DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # a Unix file, whatever machine wrote it
            archive.writestr(entry, (BUNDLE / name).read_bytes())
    partial.replace(path)


def with_hashes(text: str) -> str:
    """``large_files.yml`` with the SHA-256 of the files that are there now."""

    def entry(match: re.Match[str]) -> str:
        return match[1] + hashlib.sha256((BUNDLE / match[2]).read_bytes()).hexdigest()

    return re.sub(r"(- path: (\S+)\n(?:    .*\n)*?    hash_val: )\S+", entry, text)


def main() -> None:
    """Bring the hashes up to date and write the zip."""
    large_files = BUNDLE / "large_files.yml"
    before = large_files.read_text(encoding="utf-8")
    if with_hashes(before) != before:
        large_files.write_text(with_hashes(before), encoding="utf-8")
        print("bundle/large_files.yml: hashes brought up to date, commit it with the weights")
    forgotten = git("--others", "--exclude-standard")
    if forgotten:
        sys.exit(f"error: bundle/{forgotten[0]} is not in git: add it (git add) or delete it")
    version = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    path = REPOSITORY / "dist" / f"{NAME}_v{version}.zip"
    write_zip(path, bundle_files())
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
