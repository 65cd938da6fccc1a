# SPDX-License-Identifier: Apache-2.0
"""The memory of a reconstruction does not grow with the volume, measured by the benchmark of ``make memory``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_run import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def test_memory_stays_where_the_volume_grows(tmp_path):
    output = tmp_path / "memory.json"
    words = [sys.executable, "-m", "benchmarks.machine.memory", "--size", "toy", "--output", str(output)]
    result = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [row["format"] for row in rows] == ["TIFF", "TIFF", "OME-Zarr", "OME-Zarr"]
    for small, large in (rows[:2], rows[2:]):
        assert large["output"] == [256, 256, 181] and small["output"] == [128, 128, 85]
        more = large["output_bytes"] - small["output_bytes"]
        assert large["peak_bytes"] - small["peak_bytes"] < more  # one copy of the output would be more
    assert output.with_suffix(".md").read_text().strip() in result.stdout
