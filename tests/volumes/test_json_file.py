# SPDX-License-Identifier: Apache-2.0
"""Files are there whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.volumes.json_file import write_json


def test_json_is_strict_json(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    path = tmp_path / "new" / "scores.json"
    document = {
        "psnr": {"xy": math.inf, "xz": np.float32(25.5)},
        "slices": np.int64(3),
        "list": np.array([1.0, np.nan]),
        "path": Path("a.tif"),
        "done": True,
    }
    write_json(path, document)
    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read["psnr"] == {"xy": "inf", "xz": 25.5} and float(read["psnr"]["xy"]) == math.inf
    assert path.read_text(encoding="utf-8") == json.dumps(read, indent=4) + "\n"  # as the model zoo lays it out
    assert read["slices"] == 3 and read["list"] == [1.0, None] and read["path"] == "a.tif" and read["done"] is True


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "scores.json"
    write_json(path, {"run": 1})
    with pytest.raises(TypeError):
        write_json(path, {"run": object()})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full_disk)
        with pytest.raises(InputError, match="scores.json: cannot be written .No space left"):
            write_json(path, {"run": 2})
    assert json.loads(path.read_text()) == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "scores.json", {})
