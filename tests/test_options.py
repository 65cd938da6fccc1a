# SPDX-License-Identifier: Apache-2.0
"""Types and ranges of options: in the configs' own words, on the command line, in Python, and in the stages of
d2r.yaml."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.cli.config_files import config_folder
from scripts.cli.failures import input_error
from scripts.cli.option_help import read_help
from scripts.cli.option_types import kept_as_typed, parse_type
from scripts.cli.pipeline import check_stages, stage_workflow
from scripts.cli.preparation import set_options
from scripts.cli.words import read_command
from scripts.errors import InputError
from scripts.volumes.reading import read_header

CONFIGS = sorted(file.name for file in config_folder().glob("*.yaml"))


@pytest.mark.parametrize(
    "text, given, meant",
    [
        ("whole number, from 1 to 65536", 8, 8),
        ("whole number, from 1 to 65536", 8.0, 8),
        ("whole number, from 1 to 65536", "8", 8),
        ("whole number, from 1 to 65536", np.int64(8), 8),
        ("whole number, from 1 to 65536", 65536, 65536),
        ("number, above 0 to 1", "1e-3", 0.001),  # text in YAML
        ("number, above 0 to 1", 1, 1),
        ("number", -3, -3),
        ("3 numbers, above 0", (80, 10, 10.5), [80, 10, 10.5]),
        ("whole numbers, from 1", [1], [1]),
        ("2 whole numbers, from 11", [64.0, 64], [64, 64]),
        ("some of x | y | z", ["z"], ["z"]),
        ("some of x | y | z", ("y", "x"), ["y", "x"]),
        ("aenet | srunet", "srunet", "srunet"),
        ("true or false", "True", True),
        ("true or false", False, False),
        ("device", "cpu", torch.device("cpu")),
        ("device", torch.device("cpu"), torch.device("cpu")),
        ("path", Path("a"), Path("a")),
    ],
)
def test_value_of_the_type(text, given, meant):
    value = parse_type(text).check("x", given)
    assert value == meant and type(value) is type(meant)
    if isinstance(meant, list):
        assert [type(item) for item in value] == [type(item) for item in meant]


@pytest.mark.parametrize(
    "text, given, says",
    [
        ("whole number, from 1 to 65536", -1, "--x -1: give a whole number from 1 to 65536"),
        ("whole number, from 1 to 65536", 65537, "--x 65537: give a whole number from 1 to 65536"),
        ("whole number, from 1", 1.5, "--x 1.5: give a whole number from 1 up"),
        ("whole number, from 1", True, "--x True: give a whole number from 1 up"),
        ("whole number, from 1", None, "--x None: give a whole number from 1 up"),
        ("whole number, from 1", [1], "--x [1]: give a whole number from 1 up"),
        ("whole number, from 1", 10**400, "give a whole number from 1 up"),
        ("number, above 0 to 1", 0, "--x 0: give a number above 0 and up to 1"),
        ("number, above 0", float("nan"), "--x nan: give a number above 0"),
        ("number, above 0", float("inf"), "--x inf: give a number above 0"),
        ("number, above 0", "nan", "--x nan: give a number above 0"),
        ("number", {}, "--x {}: give a number"),
        ("2 numbers, from 0 to 100", 5, '--x 5: give 2 numbers from 0 to 100 in brackets, such as --x "[1,1]"'),
        ("2 numbers, from 0 to 100", [1, 2, 3], "--x [1, 2, 3]: give 2 numbers"),
        ("2 numbers, from 0 to 100", [1, "b"], "--x [1, 'b']: give 2 numbers"),
        ("2 numbers, from 0 to 100", [1, True], "--x [1, True]: give 2 numbers"),
        ("whole numbers, from 1", [], "--x []: give some whole numbers from 1 up in brackets"),
        ("some of x | y | z", ["w"], "--x ['w']: give one or more of x, y and z in brackets, such as --x \"['z']\""),
        ("some of x | y | z", "x", "--x x: give one or more of x, y and z in brackets"),
        ("aenet | srunet", "unet", "--x unet: there is none of that name; choose aenet or srunet"),
        ("true or false", 1, "--x 1: must be true or false"),
        ("path", "", "--x : give a path"),
        ("path", True, "--x True: give a path"),
        ("device", "gpu", "--x gpu: give cpu, cuda, or cuda:1 for the second GPU"),
        ("device", 0, "--x 0: give cpu, cuda, or cuda:1 for the second GPU"),
        ("device", "cuda:99", "--x cuda:99: "),
    ],
)
def test_value_of_another_type(text, given, says):
    with pytest.raises(InputError) as error:
        parse_type(text).check("x", given)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "whole", "3 number", "number, to 1", "number from 1", "aenet", "numbers, above a"]
)
def test_no_type(text):
    with pytest.raises(ValueError, match="is no type of option"):
        parse_type(text)


def test_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="^--device cuda: PyTorch finds no GPU .* give --device cpu$"):
        parse_type("device").check("device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_type("device").check("device", "cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="^--device cuda:2: there is no such GPU here; there is cuda:0 to cuda:1$"):
        parse_type("device").check("device", "cuda:2")


# ------------------------------------------------------------------------------------------------- on the command line


def parsed(config: str, *words: str) -> ConfigParser:
    """The parser of a workflow whose options the command line gives, as ``run`` finds it."""
    typed = read_command(words).options
    overrides = {name: given.value for name, given in typed.items() if given.value is not None}
    workflow = ConfigWorkflow(str(config_folder() / config), workflow_type=None, logging_file=False, **overrides)
    workflow.parser.parse()
    set_options(workflow.parser, read_help(config_folder() / config).options, typed)
    return workflow.parser


@pytest.mark.parametrize(
    "text",
    [
        "Mouse #3/stack.tif",
        "$__import__('os').abort()",
        "$x.tif",
        "@volume",
        "a,b.tif",
        "1e5",
        "0x10",
        "123",
        "None",
        "True",
    ],
)
def test_path_is_taken_as_typed(text):
    parser = parsed("inference.yaml", "--volume", text, f"--output={text}")
    for name in ("volume", "output"):
        assert str(parser.get_parsed_content(name)) == text
    parser = parsed("evaluate.yaml", "--reconstruction", text, "--truth", text)
    assert str(parser.get_parsed_content("run#0#output_dir")) == str(Path(text).parent)


def test_path_without_anything_special_stays_text():
    assert kept_as_typed("folder/a b.tif") == "folder/a b.tif"
    assert kept_as_typed("folder #1/a.tif") == Path("folder #1/a.tif")


def test_path_of_the_args_file_is_taken_as_written(tmp_path):
    (tmp_path / "args.yaml").write_text("volume: 'Mouse #3/stack.tif'\n")
    parser = parsed("inference.yaml", "--args_file", str(tmp_path / "args.yaml"), "--output", "x.tif")
    assert str(parser.get_parsed_content("volume")) == "Mouse #3/stack.tif"


def only_options(config: str, *words: str) -> None:
    """Check a command against the options of a config, without all that follows from them."""
    options, typed = read_help(config_folder() / config).options, read_command(words).options
    parser = ConfigParser({option.name: yaml.safe_load(option.default) for option in options})
    parser.update({name: given.value for name, given in typed.items()})
    set_options(parser, options, typed)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_refuses_what_it_cannot_be(config):
    wrong = {
        "path": "",
        "true or false": "perhaps",
        "name": None,
        "device": "gpu",
        "choice": "other",
        "some of": "other",
    }
    for option in read_help(config_folder() / config).options:
        assert option.type is not None
        word = wrong.get(option.type.kind, "abc")
        if word is None:
            continue
        with pytest.raises(InputError) as error:
            only_options(config, f"--{option.name}", word)
        assert str(error.value).startswith(f"--{option.name} ") and "\n" not in str(error.value)
        if option.type.kind != "true or false":
            with pytest.raises(InputError, match=f"^--{option.name} has no value: "):
                only_options(config, f"--{option.name}")


def test_values_are_what_was_meant():
    parser = parsed("train.yaml", "--max_epochs", "1e3", "--amp", "true", "--device", "cpu", "--patch_size", "32,32.0")
    assert parser.get_parsed_content("max_epochs") == 1000 and isinstance(parser["max_epochs"], int)
    assert parser.get_parsed_content("amp") is True
    assert parser.get_parsed_content("device") == torch.device("cpu")
    assert parser.get_parsed_content("patch_size") == [32, 32]


def test_expression_is_checked_by_its_value():
    assert parsed("train.yaml", "--batch_size", "$2 * 8").get_parsed_content("batch_size") == 16
    with pytest.raises(InputError, match=r"^--batch_size \$2 - 8: give a whole number"):
        parsed("train.yaml", "--batch_size", "$2 - 8")
    with pytest.raises(InputError, match=r"^--batch_size \$foo: cannot be evaluated: NameError"):
        parsed("train.yaml", "--batch_size", "$foo")


# ------------------------------------------------------------------------------------------------ Python and the stages


def test_python_code_is_checked_as_well(tmp_path):
    workflow = ConfigWorkflow(
        str(config_folder() / "sample.yaml"), workflow_type=None, logging_file=False, output_dir=str(tmp_path), seed=-1
    )
    with pytest.raises(RuntimeError) as error:
        workflow.initialize()
    assert str(input_error(error.value)) == "--seed -1: give a whole number from 0 to 4294967295"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_initialize_does_nothing_else_in_python(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    hook = sys.excepthook
    for name in CONFIGS:
        ConfigWorkflow(str(config_folder() / name), workflow_type=None, logging_file=False).initialize()
    assert sys.excepthook is hook


def stages(**options: object) -> list[dict]:
    return [
        {
            "title": "stage III",
            "config": "train.yaml",
            "skip": False,
            "factor": 1,
            "result": "work/aenet/model.pt",
            "options": {"output_dir": "work/aenet", **options},
        }
    ]


@pytest.mark.slow
def test_options_of_stages_are_checked_before_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("in.tif", np.random.default_rng(0).integers(0, 255, (13, 40, 48), np.uint8))
    good = {"volume": "in.tif", "widths": [2, 2, 4, 4], "patch_size": [32, 32], "spacing": None}

    def check(of_stages: list[dict]) -> None:
        check_stages(config_folder(), of_stages, "work", read_header("in.tif"))

    check(stages(**good))
    for changed, says in (
        ({"batch_size": -1}, "stage III: --batch_size -1: give a whole number from 1 to 65536"),
        ({"widths": [8, 16]}, "stage III: --widths [8, 16]: give 4 whole numbers"),
        ({"train_factors": [6, 2]}, "stage III: --train_factors [6, 2]: the smaller number comes first"),
        ({"batchsize": 2}, "stage III: train.yaml has no option batchsize; it has volume, "),
    ):
        with pytest.raises(InputError) as error:
            check(stages(**{**good, **changed}))
        assert str(error.value).startswith(says)
    skipped = stages(batch_size=-1)
    skipped[0]["skip"] = True
    check(skipped)


def test_paths_of_stages_are_kept():
    workflow = stage_workflow(stages(volume="Mouse #3/a.tif", output_dir="$x")[0], config_folder())
    workflow.parser.parse()
    assert str(workflow.parser.get_parsed_content("volume")) == "Mouse #3/a.tif"
    assert str(workflow.parser.get_parsed_content("output_dir")) == "$x"
