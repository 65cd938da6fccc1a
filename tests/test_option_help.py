# SPDX-License-Identifier: Apache-2.0
"""``run help`` knows every option of every config, with its default and its meaning."""

from __future__ import annotations

import pytest
import yaml
from monai.bundle import ConfigWorkflow
from scripts.cli.config_files import config_folder
from scripts.cli.option_help import format_help, read_help
from scripts.cli.option_types import parse_type

CONFIGS = sorted(file.name for file in config_folder().glob("*.yaml"))

TEXT = """# Does a job.
#
#   run this --a 1 \\
#       --b 2
#
# And more
# of it.

imports: []

# ---- what you choose ----
a: null # what a is: "#1"
b: "# no comment" # b's
  # goes on
c: $str(@a)
d: false # [true or false] a switch
e: [1, 2] # [2 numbers, above 0 to 1]
g: null # [path, required] a file
h: null # [path, required or g or c#d] another

# ---- presets ----
f: 1 # not a choice
"""


def test_comments_are_read(tmp_path):
    (tmp_path / "job.yaml").write_text(TEXT)
    texts = read_help(tmp_path / "job.yaml")
    assert texts.description == ["Does a job.", "And more of it."]
    assert texts.usage == ["run this --a 1 --b 2"]
    assert [tuple(option) for option in texts.options] == [
        ("a", "null", 'what a is: "#1"', None, False, ()),
        ("b", '"# no comment"', "b's goes on", None, False, ()),
        ("c", "$str(@a)", "", None, False, ()),
        ("d", "false", "a switch", parse_type("true or false"), False, ()),
        ("e", "[1, 2]", "", parse_type("2 numbers, above 0 to 1"), False, ()),
        ("g", "null", "a file", parse_type("path"), True, ()),
        ("h", "null", "another", parse_type("path"), True, ("g", "c#d")),
    ]
    page = format_help(tmp_path / "job.yaml")
    rows = {line.split()[0]: line.split()[1:] for line in page.splitlines() if line.startswith("  --")}
    assert rows["--a"][0] == "-" and rows["--c"] == ["computed"] and rows["--d"][0] == "false"
    assert rows["--g"] == ["needed", "[path]", "a", "file"]
    assert "[true or false] a switch" in page and "[2 numbers, above 0 to 1]" in page


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_has_a_meaning(name):
    texts = read_help(config_folder() / name)
    assert texts.description and texts.usage and f"configs/{name}" in texts.usage[0]
    assert [option.name for option in texts.options if not option.meaning] == []
    assert [option.name for option in texts.options if option.type is None] == []
    assert texts.options[-1].name == "debug"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_default_is_of_its_type(name):
    for option in read_help(config_folder() / name).options:
        default = yaml.safe_load(option.default)
        if option.type is not None and default is not None and not str(default).startswith("$"):
            assert option.type.check(option.name, default) == default


@pytest.mark.parametrize("name", CONFIGS)
def test_a_computed_default_is_told_in_words(name):
    for option in read_help(config_folder() / name).options:
        if option.default.strip('"').startswith("$"):
            assert "default: " in option.meaning, option.name


@pytest.mark.parametrize("name", CONFIGS)
def test_initialize_prepares_by_the_options_of_its_own_config(name):
    config = yaml.safe_load((config_folder() / name).read_text(encoding="utf-8"))
    path, *entries = config["initialize"]
    assert path == yaml.safe_load((config_folder() / CONFIGS[0]).read_text(encoding="utf-8"))["initialize"][0]
    assert entries == [{"_target_": "scripts.cli.preparation.prepare", "config": name, "debug": "@debug"}]


@pytest.mark.parametrize("name", CONFIGS)
def test_help_lists_all_options_and_runs_nothing(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(str(config_folder() / name), workflow_type=None, logging_file=False, run_id="help")
    workflow.initialize()
    assert workflow.run() == []
    page = capsys.readouterr().out
    for option in read_help(config_folder() / name).options:
        assert f"  --{option.name} " in page
    assert "@" not in page.split("meaning", 1)[1]
    assert list(tmp_path.iterdir()) == []
