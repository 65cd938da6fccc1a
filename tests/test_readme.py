# SPDX-License-Identifier: Apache-2.0
"""The commands of README.md work when they are copied in their order, in a fresh clone whose path has a space."""

from __future__ import annotations

import re
import shlex
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import tifffile
from bundle_run import AENET, AENET_TRAINING, BUNDLE, PATIENCE, PRIOR_NETWORK, PRIOR_TRAINING, environment
from scripts.cli.command_check import check_command

REPOSITORY = BUNDLE.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SHOWN = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")))

# Half an hour of training becomes a few steps of toy networks; the command is as it stands, with this behind it.
TOY = {
    "prior": {**PRIOR_TRAINING, "val_num_steps": 2},
    "prior_network": PRIOR_NETWORK,
    "generate": {"num_steps": 2},
    "teacher": AENET_TRAINING,
    "aenet": AENET_TRAINING,
    "aenet_network": AENET,
}
LONGER = {"configs/d2r.yaml": f'--presets#quick "{TOY}"'}


def blocks(text: str) -> list[str]:
    """Lines of the indented blocks of all sections but the one that draws the folders."""
    text = re.sub(r"^## Layout\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for line in text.splitlines() if re.match(r" {4}\S", line)]


def shortened(command: str) -> str:
    """A command with what makes it short, unless it only checks."""
    added = [words for config, words in LONGER.items() if config in command and "run check" not in command]
    return " ".join([command.partition(" # ")[0].rstrip(), *added])


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What a clone has, with an environment that has the packages of this one, so that none is installed."""
    if shutil.which("git") is None or shutil.which("make") is None:
        pytest.skip("needs git and make")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("a clone")
    for name in filter(None, done.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    venv.create(folder / ".venv")
    packages = folder / ".venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    paths = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    (packages / "these.pth").write_text("\n".join(paths))
    for name in ("bin/pip", "installed", "installed-test", "installed-dev"):  # as new as what they are made of
        (folder / ".venv" / name).touch()
    return folder


@pytest.mark.slow
def test_commands_work_in_their_order(clone):
    script = "set -ex\n" + "\n".join(map(shortened, blocks(README)))
    inherited = {name: value for name, value in environment().items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    # sh, and no other shell, is there for certain
    done = subprocess.run(
        ["sh", "-c", script], cwd=clone, env=inherited, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        f"{clone}/.venv"
        in subprocess.run(
            ["sh", "-c", ". .venv/bin/activate; command -v python"], cwd=clone, capture_output=True, text=True
        ).stdout
    )
    for name, slices in (("sample_x8", 129), ("x8", 129), ("own", 129), ("again", 129)):
        assert tifffile.imread(clone / "demo" / f"{name}.tif").shape == (slices, 192, 192)
    assert (clone / "demo" / "x8.tif").read_bytes() == (clone / "demo" / "sample_x8.tif").read_bytes()
    assert (clone / "demo" / "comparison.png").is_file()


def test_every_kind_of_command_is_known():
    lines = blocks(README)
    assert len(lines) >= 7
    assert lines[0].startswith("make demo") and lines[1].startswith(". .venv/bin/activate")
    assert lines[2].startswith("cd bundle")  # from which all others run
    assert all(line.startswith("python -m monai.bundle run ") for line in lines[3:]), lines


def test_options_of_commands_in_the_text_exist(monkeypatch):
    monkeypatch.chdir(BUNDLE)
    commands = re.findall(r"`(python -m monai\.bundle run [^`]*)`", README)
    assert commands
    for command in [*commands, *(line for line in blocks(README) if line.startswith("python"))]:
        check_command(shlex.split(command, comments=True)[4:])


@pytest.mark.parametrize("page", SHOWN)
def test_targets_of_make_exist(page):
    known = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^ {4})make ([a-z-]+)", (REPOSITORY / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= known
    if page == "README.md":
        assert {"demo", "test", "help"} <= set(named)


def python_that_says(version: tuple[int, int], folder: Path) -> Path:
    """A Python that takes itself for another version."""
    code = "import sys; sys.version_info = {0}; words = sys.argv[2:]; sys.argv = ['-c', *words[1:]]; exec(words[0])"
    path = folder / f"python{version[0]}.{version[1]}"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -m ]; then mkdir -p "$3/bin" && touch "$3/bin/pip"; exit; fi\n'
        f'exec "{sys.executable}" -c "{code.format((*version, 0))}" "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "version, environment_of, status, words",
    [
        ((3, 10), "VENV", 2, "error: {0} is Python 3.10 and 3.11 to 3.14 is needed: name one, e.g. make demo PYTHON="),
        ((2, 7), "VENV", 2, "error: {0} is Python 2.7 and 3.11 to 3.14 is needed"),
        ((3, 11), "VENV", 0, ""),
        ((3, 14), "VENV", 0, ""),
        ((3, 15), "VENV", 0, "warning: {0} is Python 3.15, newer than what was tried (3.11 to 3.14)"),
        ((3, 12), "LABEL_VENV", 0, ""),
        ((3, 13), "LABEL_VENV", 2, "error: {0} is Python 3.13 and MONAI Label needs 3.11 or 3.12"),
    ],
)
def test_which_pythons_make_takes(tmp_path, version, environment_of, status, words):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    python, made = python_that_says(version, tmp_path), tmp_path / "made"
    command = ["make", f"{environment_of}={made}", f"PYTHON={python}", str(made / "bin" / "pip")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == status, done.stderr
    own = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(own) == bool(words) and words.format(python) in done.stderr
    assert (made / "bin" / "pip").exists() == (status == 0)


def test_a_python_that_is_not_there(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", f"VENV={tmp_path}", "PYTHON=no-such-python", f"{tmp_path}/bin/pip"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and "error: no-such-python not found: install Python 3.11 to 3.14" in done.stderr
