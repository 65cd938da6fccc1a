# SPDX-License-Identifier: Apache-2.0
"""Old names of options, and names of MONAI's that would have no effect, are answered with what to give instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigWorkflow
from scripts.cli.command_check import check_command
from scripts.cli.config_files import config_folder
from scripts.cli.failures import input_error
from scripts.cli.option_help import read_help
from scripts.cli.renamed import RENAMED, check_renamed
from scripts.errors import InputError

CONFIGS = sorted(config_folder().glob("*.yaml"))
INFERENCE = ("--config_file", str(config_folder() / "inference.yaml"), "--volume", "a.tif", "--output", "b.tif")
GENERATE = ("--config_file", str(config_folder() / "generate.yaml"), "--volume", "a.tif")


def refused(*words: str) -> str:
    with pytest.raises(InputError) as error:
        check_command(words)
    return str(error.value)


def refused_in_python(config: str, files: tuple[Path, ...] = (), **options: Any) -> str:
    names = [str(config_folder() / config), *map(str, files)]
    workflow = ConfigWorkflow(names, workflow_type=None, logging_file=False, **options)
    with pytest.raises(RuntimeError) as error:
        workflow.initialize()
    return str(input_error(error.value))


def test_old_names_are_gone_and_new_ones_are_there():
    sections = {name for file in CONFIGS for name in yaml.safe_load(file.read_text(encoding="utf-8"))}
    options = {option.name for file in CONFIGS for option in read_help(file).options}
    assert not sections & set(RENAMED)
    assert {new for new, _ in RENAMED.values()} <= options


@pytest.mark.parametrize("old", RENAMED)
def test_every_old_name_is_answered_with_the_new(old):
    new, values = RENAMED[old]
    for name, now in ((old, new), (f"some#section#{old}", f"some#section#{new}"), (f"some::{old}", f"some#{new}")):
        with pytest.raises(InputError) as error:
            check_renamed(name)
        assert str(error.value) == f"--{name} is now --{now}" + (f" ({values})" if values else "")
    check_renamed(new)


def test_old_names_on_the_command_line():
    assert refused(*INFERENCE, "--kept_slices", "predicted") == "--kept_slices is now --input_slices (copy or predict)"
    assert refused(*INFERENCE, "--noensemble") == "--ensemble is now --tta"
    assert refused(*INFERENCE, "--inferer#ensemble", "true") == "--inferer#ensemble is now --inferer#tta"
    presets = ("--config_file", str(config_folder() / "d2r.yaml"), "--presets#quick#generate#evaluations", "2")
    assert refused(*presets) == "--presets#quick#generate#evaluations is now --presets#quick#generate#num_steps"


def test_old_names_in_python_and_in_files(tmp_path):
    assert refused_in_python("inference.yaml", ensemble=True) == "--ensemble is now --tta"
    (tmp_path / "mine.yaml").write_text("evaluations: 3\n")
    said = refused_in_python("generate.yaml", (tmp_path / "mine.yaml",))
    assert said == "--evaluations is now --num_steps"


def test_overrides_without_effect(tmp_path):
    assert refused(*INFERENCE, "--evaluator#amp", "true").endswith("would have no effect: give --amp")
    assert refused(*GENERATE, "--evaluator::amp=true").endswith("would have no effect: give --amp")
    assert "--tile changes them" in refused(*INFERENCE, "--dataloader#batch_size", "4")
    check_command([*INFERENCE, "--dataloader#batch_size", "1"])
    check_command([*INFERENCE, "--dataloader#num_workers", "2"])
    (tmp_path / "mine.yaml").write_text("dataloader#batch_size: 4\n")
    assert "--tile changes them" in refused_in_python("inference.yaml", (tmp_path / "mine.yaml",))
    amp: dict[str, Any] = {"train#trainer#amp": True}
    assert refused_in_python("train.yaml", **amp).endswith("give --amp")


@pytest.mark.parametrize("config", ["train.yaml", "inference.yaml", "d2r.yaml"])
def test_the_kind_of_a_network_is_now_its_architecture(config):
    """``network`` itself is still a section, the module, where a config has one."""
    assert refused_in_python(config, network="srunet") == "--network srunet is now --architecture srunet"
