# SPDX-License-Identifier: Apache-2.0
"""``run help`` knows every option of every config, with its default and its meaning."""

from __future__ import annotations

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from scripts.cli.option_help import config_folder, format_help, read_help
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

# ---- presets ----
f: 1 # not a choice
"""


def section(name: str, key: str) -> dict:
    """The entry of a config's list ``name`` whose target ends in ``key``."""
    config = yaml.safe_load((config_folder() / name).read_text(encoding="utf-8"))
    entries = config["help" if key == "show_help" else "run"]
    return next((e for e in entries if isinstance(e, dict) and e["_target_"].endswith(f".{key}")), {})


def test_comments_are_read(tmp_path):
    (tmp_path / "job.yaml").write_text(TEXT)
    texts = read_help(tmp_path / "job.yaml")
    assert texts.description == ["Does a job.", "And more of it."]
    assert texts.usage == ["run this --a 1 --b 2"]
    assert [tuple(option) for option in texts.options] == [
        ("a", "null", 'what a is: "#1"', None),
        ("b", '"# no comment"', "b's goes on", None),
        ("c", "$str(@a)", "", None),
        ("d", "false", "a switch", parse_type("true or false")),
        ("e", "[1, 2]", "", parse_type("2 numbers, above 0 to 1")),
    ]
    page = format_help(tmp_path / "job.yaml", {"d": True}, ["a"])
    rows = {line.split()[0]: line.split()[1:] for line in page.splitlines() if line.startswith("  --")}
    assert rows["--a"][0] == "needed" and rows["--c"] == ["computed"] and rows["--d"][0] == "true"
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
def test_every_run_checks_the_options_of_its_own_config(name):
    config = yaml.safe_load((config_folder() / name).read_text(encoding="utf-8"))
    for run_id in ("run", "check", "help"):
        if run_id in config:
            first = {"_target_": "scripts.cli.command_line.prepare", "config": name, "debug": "@debug"}
            assert config[run_id][0] == first
    assert config["initialize"][1] == {"_target_": "scripts.cli.command_line.prepare", "debug": "@debug"}


@pytest.mark.parametrize("name", CONFIGS)
def test_help_names_what_the_run_requires(name):
    required = [key for key in section(name, "require") if not key.startswith("_")]
    assert section(name, "show_help").get("required", []) == required
    assert section(name, "show_help")["config"] == name
    assert {*required} <= {option.name for option in read_help(config_folder() / name).options}


@pytest.mark.parametrize("name", CONFIGS)
def test_help_runs_and_lists_all_options(name, capsys):
    workflow = ConfigWorkflow(str(config_folder() / name), workflow_type=None, logging_file=False, run_id="help")
    workflow.initialize()
    workflow.run()
    page = capsys.readouterr().out
    for option in read_help(config_folder() / name).options:
        assert f"  --{option.name} " in page
    assert "@" not in page.split("meaning", 1)[1]
