# SPDX-License-Identifier: Apache-2.0
"""Files of tensors, as torch saves them."""

from __future__ import annotations

import io
import os
from typing import Any

import torch

from scripts.io.whole_file import write_whole


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
