# SPDX-License-Identifier: Apache-2.0
"""The ``d2r`` command: from any folder, installed or not, and quick to answer help and mistakes."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow, create_workflow, run
from scripts.cli.command_check import _WORKFLOW_PARAMETERS
from scripts.cli.config_files import config_folder
from scripts.cli.d2r import main
from scripts.cli.words import RUN_PARAMETERS

BUNDLE = config_folder().parent


def d2r(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, str(BUNDLE / "scripts" / "cli" / "d2r.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def test_without_a_job_it_lists_them(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for config in (BUNDLE / "configs").glob("*.yaml"):
        assert f"  {config.stem} " in printed
    assert main(["infrence"]) == 1
    assert capsys.readouterr().err == "error: nothing is called infrence: did you mean inference?\n"


def test_completion_offers_jobs_options_and_values(tmp_path):
    script = d2r("--completion", "bash", cwd=tmp_path).stdout

    def offered(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in ("d2r", *words))
        lines = f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}; _d2r; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", lines], capture_output=True, text=True).stdout.split()

    assert offered("inf") == ["inference"]
    assert offered("inference", "--out") == ["--output", "--output_dir"]
    assert offered("inference", "ch") == ["check"]
    assert "--workdir" in offered("d2r", "--volume", "a.tif", "--")
    assert offered("inference", "--volume", "a") == []  # bash completes files
    assert offered("inference", "--architecture", "") == ["aenet", "srunet"]
    assert offered("generate", "--sampler", "r") == ["reverse_sde"]
    assert offered("inference", "check", "--tta", "t") == ["true"]
    assert offered("inference", "--device", "c") == ["cpu", "cuda"]


@pytest.mark.slow
def test_it_forwards_from_any_folder(tmp_path):
    result = d2r("inference", "--volume", "none.tif", "--output", "x.tif", cwd=tmp_path)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "error: none.tif: no such file or folder")
    result = d2r("inference", "--volume", "$import this", "--output", "x.tif", cwd=tmp_path)
    assert result.stderr.splitlines()[-1] == "error: $import this: no such file or folder"
    assert "Zen of Python" not in result.stdout  # which importing it prints
    result = d2r("inference", "chek", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: nothing to run is called chek: did you mean check\n"


HELP = (["help"], ["inference", "help"], ["d2r", "help"], ["--completion", "bash"])
MISTAKES = {
    "inference --volum x": "unknown option --volum: did you mean --volume?",
    "inference hlep": "nothing to run is called hlep: did you mean help",
    "inference help --volum x": "unknown option --volum: did you mean --volume?",
    "inference": "--volume is missing: add --volume",
    "inference check --volume a.tif": "--output is missing: add --output",
    "inference IN.tif OUT.tif": "IN.tif stands without an option: write --volume IN.tif",
    "inference --volume a.tif --output x.tif --spacing 80 10 10": '--spacing "[80,10,10]"',
    "inference --volume a.tif --output x.tif --tile big": "--tile big: give a whole number",
    "inference --volume a.tif --output x.tif --device gpu": "--device gpu: give cpu, cuda",
    "inference --volume a.tif --output x.tif --kept_slices predicted": "--kept_slices is now --input_slices (copy or",
    "inference --volume a.tif --output x.tif --evaluator#amp true": "--evaluator#amp true: would have no effect: give --a",
    "decimate --volume a.tif --output x.tif": "--factor is missing: add --factor",
    "train --volume a.tif --args_file none.yaml": "--args_file none.yaml: no such file",
}
LISTEN = """
import json, sys
from scripts.cli.d2r import main
said = []
for words in json.loads(sys.argv[1]):
    try:
        main(words)
        said.append("")
    except ValueError as error:
        said.append(f"{error}")
loaded = sorted({"torch", "monai", "numpy"} & set(sys.modules))
print("\\n" + json.dumps([loaded, said]))
"""


@pytest.mark.slow
def test_help_and_mistakes_are_answered_before_torch_is_imported(tmp_path):
    commands = [*HELP, *(line.split() for line in MISTAKES)]
    words = [sys.executable, "-c", LISTEN, json.dumps(commands)]
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE)}
    result = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    loaded, said = json.loads(result.stdout.splitlines()[-1])
    assert loaded == []
    assert said[: len(HELP)] == [""] * len(HELP)
    for line, expected in zip(said[len(HELP) :], MISTAKES.values()):
        assert expected in line and "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_names_of_monai_are_those_of_the_installed_one():
    def names(function) -> list[str]:
        parameters = inspect.signature(function).parameters.values()
        return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]

    assert tuple(names(run)) == RUN_PARAMETERS
    assert {*names(ConfigWorkflow), *names(create_workflow)} <= {*RUN_PARAMETERS, *_WORKFLOW_PARAMETERS}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder in which the project is installed as by ``pip install .``, without what it depends on."""
    pytest.importorskip("setuptools")
    source, place = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("setup.cfg", "pyproject.toml", "LICENSE"):
        shutil.copy(BUNDLE.parent / name, source)
    shutil.copytree(BUNDLE, source / "bundle", ignore=shutil.ignore_patterns("__pycache__", "runs", "eval"))
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run([*words, "--target", str(place), str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return place


@pytest.mark.slow
def test_installed_command_carries_configs_code_and_weights(installed):
    def files(folder: Path) -> set[str]:
        kinds = ("configs/*", "models/*.pt", "scripts/**/*.py")
        return {str(file.relative_to(folder)) for kind in kinds for file in folder.glob(kind)}

    assert files(installed / "d2r_bundle") == files(BUNDLE)
    assert not (installed / "scripts").exists()  # a name that others have too


@pytest.mark.slow
def test_installed_command_runs_from_any_folder(installed, tmp_path):
    def say(*words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, str(installed / "bin" / "d2r"), *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    assert "--volume" in say("inference", "help").stdout
    wrong = say("inference", "--volum", "x")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: unknown option --volum: did you mean --volume?")
    assert say("sample", "--output_dir", "out", "--size", "[16,16,9]").returncode == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"sample_truth.tif", "sample_lowres.tif"}
