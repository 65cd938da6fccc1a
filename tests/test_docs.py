# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the program measured and names what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scripts.report import score_table

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MODEL_PAGE = (REPOSITORY / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
SCORES = json.loads((REPOSITORY / "bundle" / "docs" / "figures" / "fib25_test_x8.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [README, MODEL_PAGE], ids=["README", "model page"])
def test_scores_are_those_of_the_run(page):
    titles = {"linear": "aligned linear", "cubic": "aligned cubic", "result": "reconstruction"}
    rows = {titles[name]: scores for name, scores in SCORES["scores"].items()}
    assert score_table(rows, SCORES["gain over the better interpolation"]) in page


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "bundle/docs/README.md"])
def test_named_files_exist(page):
    folder = (REPOSITORY / page).parent
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (folder / target).exists(), target
    for config in re.findall(r"configs/(\w+\.yaml)", text):
        assert (REPOSITORY / "bundle" / "configs" / config).is_file(), config


def test_readme_shows_the_two_commands():
    assert "make demo" in README and "make test" in README


def test_metadata_has_the_scores_of_the_run():
    metadata = json.loads((REPOSITORY / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))
    result = SCORES["scores"]["result"]
    expected = {f"{measure}_{plane}": score for measure in ("psnr", "ssim") for plane, score in result[measure].items()}
    assert metadata["eval_metrics"] == expected
