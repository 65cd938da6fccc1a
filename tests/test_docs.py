# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the program measured and names what is there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from bundle_run import BUNDLE
from scripts.cli.command_check import check_command
from scripts.cli.option_help import read_help
from scripts.cli.renamed import RENAMED
from scripts.evaluation.tables import score_table

REPOSITORY = Path(__file__).resolve().parents[1]
SITE = REPOSITORY / "docs"
DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bundle/docs/README.md")]
PAGES = [*DOCUMENTS, *sorted(SITE.rglob("*.md"))]
PAGE_IDS = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
# of MONAI, TensorBoard, d2r.py, MONAI Label and benchmarks/tables.py; and one that a page shows as a mistake
OTHER_OPTIONS = {
    "config_file",
    "dataset",  # what the command line calls the option array of the configs
    "args_file",
    "checkpoint",  # a key of the model zoo
    "tracking",  # of MONAI, as config_file
    "bundle_root",
    "logdir",
    "completion",
    "studies",
    "host",
    "port",
    "conf",
    "rows",
    "infrer",
}
OTHER_CONFIGS = {"my", "<name>", "tables"}  # stand for a file of the reader; benchmarks/tables.yaml
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MODEL_PAGE = (REPOSITORY / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
SCORES = json.loads((REPOSITORY / "bundle" / "docs" / "figures" / "fib25_test_x8.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [README, MODEL_PAGE], ids=["README", "model page"])
def test_scores_are_those_of_the_run(page):
    titles = {"linear": "aligned linear", "cubic": "aligned cubic", "result": "reconstruction"}
    rows = {titles[name]: scores for name, scores in SCORES["scores"].items()}
    assert score_table(rows, SCORES["gain over the better interpolation"]) in page


def headings(page: Path) -> set[str]:
    """Anchors of a page and of what it includes: GitHub's and MkDocs' are the same for its headings."""
    text = page.read_text(encoding="utf-8")
    for document in re.findall(r'^--8<-- "([^":]+)', text, re.MULTILINE):
        text += (REPOSITORY / document).read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        if target.endswith("lattice.svg"):
            continue  # drawn with the site
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor and not anchor.startswith("scripts.") and "<!-- options" not in linked.read_text(encoding="utf-8"):
            assert anchor in headings(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_named_configs_and_options_exist(page):
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        text = ""  # names options as they were called in their time
    for config in re.findall(r"(?<![\w<>-])([\w<>]+)\.yaml", text):
        assert config in OTHER_CONFIGS or (BUNDLE / "configs" / f"{config}.yaml").is_file(), config
    known = {option.name for config in (BUNDLE / "configs").glob("*.yaml") for option in read_help(config).options}
    sections = {name for config in (BUNDLE / "configs").glob("*.yaml") for name in yaml.safe_load(config.read_text())}
    for option, nested in re.findall(r"(?<![\w-])--([a-z]\w*)(#?)", text):
        assert option in known | OTHER_OPTIONS | set(RENAMED) or (nested and option in sections), option


def commands(text: str) -> list[list[str]]:
    """The words after ``monai.bundle run`` of each command that a page shows."""
    lines = [line.strip(" `") for line in re.sub(r"\\\n", " ", text).splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True) if re.match(r"\S*python -m monai|d2r ", line) else []
        if words[1:4] == ["-m", "monai.bundle", "run"]:
            found.append(words[4:])
        elif words[:1] == ["d2r"] and words[1:]:
            found.append([*words[2:], "--config_file", f"configs/{words[1]}.yaml"])
    return [[word.replace("/path/to/bundle/", "") for word in words] for words in found]


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_have_options_of_their_config(page, monkeypatch):
    monkeypatch.chdir(BUNDLE)
    for words in commands(page.read_text(encoding="utf-8")):
        check_command(words)


def test_commands_are_found():
    # so that the test above cannot pass on nothing
    assert len(commands((SITE / "tutorial.md").read_text(encoding="utf-8"))) >= 7
    assert len(commands((SITE / "how-to" / "commands.md").read_text(encoding="utf-8"))) >= 6


def test_readme_shows_the_two_commands():
    assert "make demo" in README and "make test" in README


def test_metadata_has_the_scores_of_the_run():
    metadata = json.loads((REPOSITORY / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))
    result = SCORES["scores"]["result"]
    expected = {f"{measure}_{plane}": score for measure in ("psnr", "ssim") for plane, score in result[measure].items()}
    assert metadata["eval_metrics"] == expected
