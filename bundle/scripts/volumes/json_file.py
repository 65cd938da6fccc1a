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

"""JSON documents that appear once they are complete."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from scripts.volumes.whole_file import write_whole


def write_json(path: str | os.PathLike, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, in the layout of the model zoo; the file appears once it is complete.

    Infinity, which a perfect slice scores and JSON does not know, is written as the string "inf", NaN as null.

    Args:
        path: the file; replaced when it exists.
        document: nested mappings and sequences of numbers (NumPy's too), strings, truth values and None.

    Raises:
        InputError: if the file cannot be written.
    """
    text = json.dumps(_plain(document), indent=4, ensure_ascii=False, allow_nan=False) + "\n"
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
