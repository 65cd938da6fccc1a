# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Reads config files and merges several of them; a single one is read without importing MONAI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from scripts.errors import InputError, one_line

_SUFFIXES = (".json", ".yaml", ".yml")


def config_folder() -> Path:
    """Folder of the bundle's configs, wherever the command was started from."""
    return Path(__file__).resolve().parents[2] / "configs"


def separate(files: Any) -> list[str]:
    """Return the names of one or more files as a list; on the command line they may be separated by commas."""
    if isinstance(files, str):
        return files.split(",") if "," in files and not Path(files).is_file() else [files]
    return [str(file) for file in files] if isinstance(files, (list, tuple)) else [str(files)]


def load_files(option: str, files: Any) -> dict[str, Any]:
    """
    Return the merged content of config files; later ones lie over earlier ones.

    Args:
        option: that names them, for the error.
        files: one name or several, see :func:`separate`.

    Raises:
        InputError: a file does not exist, is no YAML or JSON, has no names with values, or does not fit another.
    """
    names = separate(files)
    contents = [load_file(option, name) for name in names]
    if len(contents) == 1 and all(str(name).isidentifier() for name in contents[0]):
        return contents[0]
    from monai.bundle import ConfigParser  # not at the top: takes seconds

    try:
        return ConfigParser.load_config_files(names)
    except LookupError as error:
        raise InputError(f"--{option} {files}: one does not fit the other: {one_line(error)}") from error


def load_file(option: str, name: str) -> dict[str, Any]:
    """
    Return the content of one file.

    Args:
        option: that names it, for the error.
        name: of a YAML or JSON file.

    Raises:
        InputError: it does not exist, is no YAML or JSON, or has no names with values.
    """
    file = Path(name)
    if not file.is_file():
        raise InputError(f"--{option} {name}: no such file")
    if file.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--{option} {name}: is no config; a config ends in .yaml or .json")
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # JSON has ValueErrors
        raise InputError(f"--{option} {name}: cannot be parsed: {_place_of(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"--{option} {name}: has no names with values, as a config has")
    return content


def _place_of(error: Exception) -> str:
    """Return what is wrong in a file and where, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return one_line(error)
