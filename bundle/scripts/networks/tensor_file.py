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

"""Files of tensors, as torch saves them."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from scripts.volumes.whole_file import write_whole

# Bytes of the names and shapes in a file; those of the largest network here take some 20 thousand.
_LARGEST_INDEX = 2**20


def write_tensors(path: str | os.PathLike, content: Any) -> None:
    """
    Save with ``torch.save``, whole or not at all.

    By way of memory: where a disk is full, torch itself ends in an assertion of its own that does not tell why.

    Args:
        path: the file; replaced when it exists.
        content: tensors and primitives, nested.

    Raises:
        InputError: if the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, lambda partial: partial.write_bytes(buffer.getbuffer()))


def check_zip(file: str | Path | IO[bytes]) -> None:
    """Check each record of a file that ``torch.save`` wrote against its checksum, which ``torch.load`` does not.

    Raises:
        zipfile.BadZipFile: the file is damaged or none of torch's; other errors of ``zipfile`` mean the same.
        OSError: it cannot be read.
    """
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        # torch stores records as they are: a compressed one could be far larger than its file, and one that is marked
        # as a folder is left out by torch's reader and not by this one
        if any(record.compress_type != zipfile.ZIP_STORED or record.external_attr for record in records):
            raise zipfile.BadZipFile("records as torch writes none")
        if any(record.file_size > _LARGEST_INDEX for record in records if record.filename.endswith("/data.pkl")):
            raise zipfile.BadZipFile("too many names")
        wrong = archive.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"checksum of {wrong}")
