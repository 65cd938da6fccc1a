# SPDX-License-Identifier: Apache-2.0
"""Writes the zip that would be published: ``dist/microscopy_axial_super_resolution_v<version>.zip``.

``make bundle`` runs it. It holds the folder ``bundle/`` of the last commit, as ``git archive`` gives it, so that a
commit always gives the same bytes. The hashes in ``bundle/large_files.yml`` are compared with the weights first. Needs
git, and nothing but Python.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE = REPOSITORY / "bundle"
NAME = "microscopy_axial_super_resolution"


def write_zip(path: Path, commit: str = "HEAD") -> None:
    """Write the bundle of a commit below the folder ``NAME``.

    Args:
        path: of the zip; replaced if it exists.
        commit: as git names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _git("archive", "--format=zip", f"--prefix={NAME}/", f"--output={partial}", commit)
    partial.replace(path)


def with_hashes(text: str) -> str:
    """Return ``large_files.yml`` with the SHA-256 of the files that are there now.

    Args:
        text: what the file holds.
    """

    def entry(match: re.Match[str]) -> str:
        return match[1] + hashlib.sha256((BUNDLE / match[2]).read_bytes()).hexdigest()

    return re.sub(r"(- path: (\S+)\n(?:    .*\n)*?    hash_val: )\S+", entry, text)


def _git(*words: str) -> str:
    """Run git in ``bundle/``, to which its commands are then limited; returns what it prints."""
    environment = {**os.environ, "TZ": "UTC"}  # a zip stores local times
    try:
        done = subprocess.run(["git", *words], cwd=BUNDLE, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("error: git not found: install it, the zip is made from the last commit")
    if done.returncode:
        sys.exit(f"error: git {words[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


def main() -> None:
    """Bring the hashes up to date and write the zip, unless something is not committed."""
    large_files = BUNDLE / "large_files.yml"
    before = large_files.read_text(encoding="utf-8")
    if with_hashes(before) != before:
        large_files.write_text(with_hashes(before), encoding="utf-8")
        sys.exit(
            "error: bundle/large_files.yml had hashes of other weights: they are right now, commit it with the weights"
        )
    uncommitted = _git("status", "--porcelain", "--untracked-files=all", ".").splitlines()
    if uncommitted:
        sys.exit(f"error: {uncommitted[0][3:]} is not committed: commit it, or take the change back")
    version = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))["version"]
    path = REPOSITORY / "dist" / f"{NAME}_v{version}.zip"
    write_zip(path)
    print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
