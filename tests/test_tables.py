# SPDX-License-Identifier: Apache-2.0
"""``make benchmark`` trains and scores every row, goes on where it stopped, and writes what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_run import environment

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from tables import page  # noqa: E402


def scores(value: float) -> dict:
    planes = dict.fromkeys(("xy", "xz", "yz"), value)
    return {"psnr": planes, "ssim": {plane: value / 100 for plane in planes}}


def test_page_rounds_means_down_and_spreads_up():
    row = {"kind": "self-supervised", "seeds": {"0": {"scores": scores(25.001)}, "1": {"scores": scores(25.118)}}}
    result = {
        "machine": "one machine",
        "data": "test.ome.tif",
        "sizes": {"seeds": [0, 1], "factor": 8},
        "baselines": {"aligned linear": scores(24.999)},
        "tables": {"table 1": {"D2R-AENet": row}},
    }
    text = page(result)
    assert "| aligned linear | interpolation | 24.99 | 24.99 | 24.99 | 0.249 | 0.249 | 0.249 |" in text
    assert "| D2R-AENet | self-supervised | 25.05 ± 0.06 |" in text
    assert "one machine" in text and "every 8th slice" in text


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("tables")
    words = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--size", "toy", "--work", str(folder / "work")]
    words += ["--page", str(folder / "benchmarks.md")]
    subprocess.run(words, env=environment(), check=True, capture_output=True, text=True)
    return folder, words


def test_every_row_is_trained_and_scored(toy):
    folder, _ = toy
    result = json.loads((folder / "work" / "tables.json").read_text())
    text = (folder / "benchmarks.md").read_text()
    titles = [*result["baselines"], *(title for table in result["tables"].values() for title in table)]
    for title in (
        "bicubic as published code has it (misaligned)",
        "SRUNet",
        "Sup-AENet",
        "D2R-SRUNet",
        "D2R-AENet",
        "k = 2",
    ):
        assert title in titles
    for title in titles:
        assert f"| {title} |" in text
    # AENet begins at interpolation and SRUNet at nothing: the rows are what they say
    rows = {title: row["seeds"]["0"]["scores"]["psnr"]["xz"] for title, row in result["tables"]["table 1"].items()}
    assert rows["Sup-AENet"] > rows["SRUNet"] + 1 and rows["D2R-AENet"] > rows["D2R-SRUNet"] + 1


def test_what_is_finished_is_not_done_again(toy):
    folder, words = toy
    before = {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("*.tif")}
    subprocess.run(words, env=environment(), check=True, capture_output=True, text=True)
    assert {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("*.tif")} == before
