# SPDX-License-Identifier: Apache-2.0
"""JSON documents that appear once they are complete."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from scripts.volumes.whole_file import write_whole


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> None:
    """Write a document as JSON; the file appears once it is complete.

    Infinity, which a perfect slice scores and JSON does not know, is written as the string "inf", NaN as null.

    Args:
        path: the file; replaced when it exists.
        document: nested mappings and sequences of numbers (NumPy's too), strings, truth values and None.

    Raises:
        InputError: if the file cannot be written.
    """
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    """Return the value in the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, tensors
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
