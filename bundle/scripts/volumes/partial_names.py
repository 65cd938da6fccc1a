# SPDX-License-Identifier: Apache-2.0
"""Temporary names of files that are being written, by which the leftovers of a killed run are found."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from scripts.volumes.paths import suffix_of


def digest_of(name: str) -> str:
    """Return a short ASCII name for a file name of any length and script."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def partial_name(name: str, suffix: str | None = None) -> str:
    """Return a unique temporary name for a file, with its suffix or another."""
    return f".{digest_of(name)}.{secrets.token_hex(4)}.partial{suffix_of(name) if suffix is None else suffix}"


def partial_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the temporary files in a folder, each with the :func:`digest_of` its final name."""
    for entry in os.listdir(folder):
        match = re.match(r"\.([0-9a-f]{16})\.[0-9a-f]{8}\.partial", entry)
        if match:
            yield folder / entry, match.group(1)
