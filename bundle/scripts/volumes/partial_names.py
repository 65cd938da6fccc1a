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

"""Temporary names of files that are being written, by which the leftovers of a killed run are found."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
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


def remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it; without effect where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
