# SPDX-License-Identifier: Apache-2.0
"""``make benchmark`` trains and scores every row, goes on where it stopped, and writes what was measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bundle_run import environment
from PIL import Image

from benchmarks.paper.page import mean_and_spread, page
from benchmarks.paper.recipes import Recipes
from benchmarks.paper.results import Results
from benchmarks.paper.tables import rows
from benchmarks.paper.tasks import Task

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "benchmarks" / "paper"


@pytest.mark.parametrize(
    "values, lower, cell",
    [
        ([25.001, 25.118], False, "25.05 ± 0.06"),
        ([24.999], False, "24.99"),
        ([72.001], True, "72.01"),
        ([0.0, 0.0], True, "0.00 ± 0.00"),
    ],
)
def test_cells_round_to_the_worse_side_and_spreads_up(values, lower, cell):
    assert mean_and_spread(values, 2, lower) == cell


def test_the_page_is_what_the_results_give():
    results = json.loads((PAPER / "tables.json").read_text(encoding="utf-8"))
    assert page(results) == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_results_are_of_the_sizes_and_rows_that_are_declared(tmp_path):
    """Otherwise the next run would refuse the file, or drop a row of it."""
    sizes = yaml.safe_load((PAPER / "tables.yaml").read_text(encoding="utf-8"))["paper"]
    results = Results(PAPER / "tables.json", sizes)
    tasks = {factor: Task(tmp_path / "truth.tif", tmp_path / "low.tif", factor) for factor in sizes["factors"]}
    declared = {(table, row.title) for table, row in rows(Recipes(tmp_path, tmp_path, sizes, sizes["seeds"][0]), tasks)}
    there = {(table, title) for table, titles in results.content["rows"].items() for title in titles}
    assert there == declared


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("tables")
    words = [sys.executable, "-m", "benchmarks.paper.tables", "--size", "toy", "--work", str(folder / "work")]
    words += ["--page", str(folder / "benchmarks.md"), "--results", str(folder / "tables.json")]
    subprocess.run(words, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True)
    return folder, words


@pytest.mark.slow
def test_every_row_is_trained_and_scored(toy):
    folder, _ = toy
    result = json.loads((folder / "tables.json").read_text())
    text = (folder / "benchmarks.md").read_text()
    assert set(result["interpolations"]) == {"2.5", "4"}
    titles = [*result["interpolations"]["4"], *(title for table in result["rows"].values() for title in table)]
    for title in (
        "bicubic as published code has it (misaligned)",
        "SRUNet",
        "Sup-AENet",
        "Sup-AENet for as long as teacher and student",
        "D2R-SRUNet",
        "D2R-AENet",
        "D2R-AENet, self-trained",
        "the shipped weights",
        "k = 2",
        "D2R-AENet, self-trained, 2 evaluations with noise",
        "D2R-AENet, self-trained for 4 steps",
        "x2.5: the shipped weights",
        "x2.5: D2R-AENet, self-trained for 4 steps",
        "x2.5: D2R-AENet, self-trained for 4 steps on x2 and x3 alone",
    ):
        assert title in titles
    for title in titles:
        assert f"| {title} |" in text
    assert "| the truth |  | 1.000 | 0.000 | 0.00 | 0.00 | 0.00 |" in text  # against its own segmentation
    assert "| D2R-AENet | copied |" in text and "| D2R-AENet | predicted |" in text
    for picture in re.findall(r"\((benchmarks_\w+\.png)\)", text):
        with Image.open(folder / picture) as image:
            assert min(image.size) > 300
    for picture in ("worst", "time", "light"):
        assert f"benchmarks_{picture}.png" in text
    # AENet begins at interpolation and SRUNet at nothing: the rows are what they say
    scored = {title: row["seeds"]["0"]["scores"]["psnr"]["xz"] for title, row in result["rows"]["table 1"].items()}
    assert scored["Sup-AENet"] > scored["SRUNet"] + 1 and scored["D2R-AENet"] > scored["D2R-SRUNet"] + 1
    first, other = "D2R-AENet", "AENet at k = 1 (no diffusion)"
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} less {other} | 0 |"))
    assert float(line.split("|")[4]) == pytest.approx(scored[first] - scored[other], abs=0.01)


@pytest.mark.slow
def test_stage_2_is_compared_with_other_ways_of_it(toy):
    folder, _ = toy
    result = json.loads((folder / "tables.json").read_text())
    text = (folder / "benchmarks.md").read_text()
    first, other = "D2R-AENet", "D2R-AENet, 2 evaluations with noise"
    one, two = result["rows"]["table 1"][first], result["rows"]["restorations"][other]
    one, two = (row["seeds"]["0"]["scores"]["ssim"]["yz"] for row in (one, two))
    line = next(line for line in text.splitlines() if line.startswith(f"| {other} less {first} | 0 |"))
    assert one != two and float(line.split("|")[-2]) == pytest.approx(two - one, abs=0.001)


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(toy):
    folder, words = toy
    shutil.rmtree(folder / "work" / "seed0")  # as on another machine, to which the results alone were taken
    before = (folder / "benchmarks.md").read_text()
    (folder / "benchmarks.md").unlink()
    subprocess.run(words, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True)
    assert not (folder / "work" / "seed0").exists()
    assert (folder / "benchmarks.md").read_text() == before


@pytest.mark.slow
def test_results_of_other_sizes_are_not_mixed(toy):
    folder, words = toy
    result = json.loads((folder / "tables.json").read_text())
    result["sizes"]["factor"] = 5
    other = folder / "other.json"
    other.write_text(json.dumps(result))
    run = subprocess.run([*words, "--results", str(other)], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert run.returncode == 2 and "holds results with factor 5, not 4" in run.stderr.splitlines()[-1]


@pytest.mark.slow
def test_results_are_continued_with_a_table_declared_since(toy):
    folder, _ = toy
    sizes = json.loads((folder / "tables.json").read_text())["sizes"]
    older = folder / "older.json"
    older.write_text(json.dumps({"sizes": {name: sizes[name] for name in sizes if name != "restorations"}}))
    assert Results(older, sizes).content["sizes"] == sizes


@pytest.mark.slow
def test_missing_data_are_told_in_one_line(toy):
    folder, words = toy
    words = [*words, "--size", "paper", "--data", str(folder / "none"), "--results", str(folder / "none.json")]
    run = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 2 and "none/test.ome.tif: no such file or folder" in last and "Traceback" not in run.stderr


@pytest.mark.slow
def test_results_of_several_machines_are_joined(toy):
    folder, _ = toy
    whole = json.loads((folder / "tables.json").read_text())
    one, other = (json.loads(json.dumps(whole)) for _ in range(2))
    for half, table in ((one, "table 1"), (other, "table 3")):
        del half["rows"][table]
    del one["seconds"]["0"]["train aenet of k2"], one["interpolations"]["2.5"], other["interpolations"]["4"]
    for name, half in (("one", one), ("other", other)):
        (folder / f"{name}.json").write_text(json.dumps(half))
    results = Results(folder / "one.json", whole["sizes"])
    results.join(folder / "other.json")
    assert json.loads((folder / "one.json").read_text()) == whole
