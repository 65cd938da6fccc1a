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

"""Checks the words of a command against the configs that it names: do the options exist, are their values valid?

MONAI silently ignores an unknown option and answers an unknown nested one with a traceback. These checks need neither
MONAI nor torch, whose import takes seconds, except for options nested in a section and for several config files.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import pydoc
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from scripts.cli.config_files import load_file, load_files, separate
from scripts.cli.option_help import Option, read_help
from scripts.cli.option_types import OptionType, parse_type
from scripts.cli.renamed import check_effect, check_renamed
from scripts.cli.words import RUN_PARAMETERS, Command, Typed, read_command
from scripts.errors import InputError, one_line

RUN_IDS = ("run", "check", "help")  # what a config can be asked for; every one has help
PATHS_BESIDE = (
    "bundle_root",
    "dataset_dir",
    "output_dir",
    "ckpt_dir",
    "checkpoint",
)  # paths, whether or not a config offers them as options
_WORKFLOW_PARAMETERS = ("workflow_name", "workflow_type", "properties_path")  # of MONAI's, beside those of run
_EXPRESSION = ("$", "@", "%")  # what MONAI takes for code, or for a part of a config, begins so


def check_command(words: Sequence[str]) -> None:
    """
    Check the words of a command against the config files that it names.

    Args:
        words: what follows ``python -m monai.bundle run``.

    Raises:
        InputError: a config file does not exist or cannot be parsed; the run id is not in it; an option is neither in
            it nor MONAI's own, has a value that it cannot have, or is missing; a word belongs to no option.
    """
    command = read_command(words)
    given = {name: typed.value for name, typed in command.options.items()}
    if given.get("config_file") is None:
        return  # a workflow class without a config
    config = load_files("config_file", given["config_file"])
    options = options_of(command)
    types = types_of(options)
    _check_unnamed(command, config, types)
    check_effect(given)
    _check_names(given, config, types)
    _check_values(command, options)
    if command.run_id != "help":
        _check_required(command, config, options)


def options_of(command: Command) -> list[Option]:
    """Return the options of the config files that a command names."""
    if "config_file" not in command.options:
        return []
    options: dict[str, Option] = {}
    for file in separate(command.options["config_file"].value):
        if Path(file).suffix in (".yaml", ".yml") and Path(file).is_file():
            try:
                options.update({option.name: option for option in read_help(file).options})
            except ValueError:  # a file that changes some values of another has no options of its own
                continue
    return list(options.values())


def types_of(options: Iterable[Option]) -> dict[str, OptionType]:
    """Return the types of options by name, with those of the paths that configs have beside their options."""
    types = {name: parse_type("path") for name in PATHS_BESIDE}
    types.update({option.name: option.type for option in options if option.type is not None})
    return types


def check_has_value(name: str, typed: Typed, kind: OptionType) -> None:
    """
    Check that an option other than a switch was not typed without a value.

    Raises:
        InputError: it was.
    """
    if typed.text is None and kind.kind != "true or false":
        raise InputError(f"--{name} has no value: {kind.wanted(name)}")


def check_typed(name: str, typed: Typed, kind: OptionType, default: Any = None) -> None:
    """
    Check what was typed for an option.

    Args:
        name: of the option.
        typed: see there; an expression is left to be evaluated.
        kind: type of the option.
        default: of the option, an example for the error.

    Raises:
        InputError: it is of another type, or nothing.
    """
    check_has_value(name, typed, kind)
    if kind.kind == "path" or not str(typed.value).startswith(_EXPRESSION):
        kind.check(name, typed.value, typed.text, default)


def _check_names(given: Mapping[str, Any], config: Mapping[str, Any], types: Mapping[str, OptionType]) -> None:
    """Raise InputError when an option is neither in the config nor MONAI's own."""
    reserved = {"_meta_", *RUN_PARAMETERS, *_WORKFLOW_PARAMETERS, *_names_of_tracking(given.get("tracking"))}
    source = " and ".join(separate(given["config_file"]))
    for name, value in given.items():
        section, *rest = re.split("#|::", name)
        if name in RUN_IDS and value is True:  # it would put True in place of that section, and run
            raise InputError(f"--{name} is no option: write the word {name} after run, without hyphens")
        if section not in config and section not in reserved:
            if f"no{name}" in config:  # Fire reads a name without a value as a switch, and no... as switching off
                raise InputError(f"--no{name} has no value: write --no{name} VALUE")
            names = [key for key in config if not key.startswith("_") and key not in ("imports", "initialize")]
            check_renamed(name)
            raise _unknown(name, section, [*names, *reserved], f"the top-level names in {source}")
        if isinstance(value, str) and not (name in types and types[name].kind == "path"):
            _check_code(name, value, config)
        if rest and section in config and section not in given:
            _check_nested(name, rest, config[section], source)


def _check_values(command: Command, options: Iterable[Option]) -> None:
    defaults = {option.name: yaml.safe_load(option.default) for option in options}
    types = types_of(options)
    for name in sorted(types, key=lambda name: types[name].kind == "device"):  # last, for torch knows the GPUs
        if name in command.options:
            typed, default = command.options[name], defaults.get(name)
            if types[name].kind == "path" or repr(typed.value) != repr(default):
                check_typed(name, typed, types[name], default)


def _check_required(command: Command, config: Mapping[str, Any], options: Iterable[Option]) -> None:
    for option in options:
        typed = command.options.get(option.name, Typed(config.get(option.name), None))
        another = any(
            command.options.get(name.replace("#", "::"), command.options.get(name)) for name in option.instead
        )
        if option.required and not another and typed.value is None and typed.text in (None, "None"):
            is_path = option.type is not None and option.type.kind == "path"
            if typed.text is None or not is_path:  # a file may have that name
                raise InputError(f"--{option.name} is missing: add --{option.name} and its value to the command")


def _names_of_tracking(tracking: Any) -> Iterable[str]:
    """Return the options that ``--tracking`` brings with it."""
    if not isinstance(tracking, str):
        return ()
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS  # not at the top: takes seconds

    settings: Mapping[str, Any] = DEFAULT_EXP_MGMT_SETTINGS.get(tracking, {})
    return settings.get("configs", ())


def _check_unnamed(command: Command, config: Mapping[str, Any], types: Mapping[str, OptionType]) -> None:
    """Raise InputError when a word that stands without an option is not what to run."""
    run_id, given = command.run_id, command.options.get("run_id", Typed(None, None))
    strays = command.unnamed
    by_position = bool(strays) and strays[0][0] == given.text
    if run_id != "help" and (run_id not in config or run_id in types):
        known = [name for name in RUN_IDS if name in config or name == "help"]
        nearest = difflib.get_close_matches(run_id, known, n=1)
        if by_position and not nearest and (strays[0][1] is not None or re.search("[./]", run_id)):
            raise _stray(command, *strays[0], types)
        advice = f"did you mean {nearest[0]}" if nearest else f"give one of {', '.join(known)}"
        raise InputError(f"nothing to run is called {run_id}: {advice}")
    if by_position:
        strays = strays[1:]
    config_by_position = command.options["config_file"].text in [word for word, _ in strays]
    if strays and not config_by_position:
        raise _stray(command, *strays[0], types)


def _stray(command: Command, word: str, after: str | None, types: Mapping[str, OptionType]) -> InputError:
    """Return the error about a word that stands without an option."""
    follows = types.get(after or "")
    if follows is not None and follows.is_list:
        values = [command.options[str(after)].text, *(each for each, name in command.unnamed if name == after)]
        return InputError(
            f"--{after} {' '.join(map(str, values))}: a list stands in brackets and quotes, without spaces: "
            f'--{after} "[{",".join(str(value).strip("[],") for value in values)}]"'
        )
    if follows is not None and follows.kind == "path":
        whole = " ".join([str(command.options[str(after)].text), *(w for w, name in command.unnamed if name == after)])
        return InputError(f'{word} stands without an option: a name with spaces goes in quotes: --{after} "{whole}"')
    first = next((name for name, kind in types.items() if kind.kind == "path" and name not in PATHS_BESIDE), None)
    if first is not None and first not in command.options:
        return InputError(f"{word} stands without an option: write --{first} {word}")
    return InputError(f"{word} stands without an option: write --NAME {word}, or leave it out")


def _check_code(name: str, value: str, config: Mapping[str, Any]) -> None:
    """Raise InputError when a value asks MONAI for an import or a part of a file that cannot be."""
    if value.startswith("%"):
        from monai.bundle import ConfigParser  # not at the top: takes seconds

        file, part = ConfigParser.split_path_id(value[1:])
        source = load_file(name, file) if file else config
        if part and part not in ConfigParser(config=source):
            raise InputError(f"--{name} {value}: {file or 'the config'} has no {part}")
    if value.startswith("$") and "import" in value:
        try:
            ast.parse(value[1:])
        except SyntaxError as error:
            raise InputError(f"--{name} {value}: what follows $ is no Python: {one_line(error)}") from error


def _check_nested(name: str, parts: Iterable[str], item: Any, source: str) -> None:
    """Raise InputError when a part of a nested option does not exist in the config."""
    for part in parts:
        if isinstance(item, dict):
            if part not in item:
                known = _arguments(item)
                if known is not None and part not in known:
                    check_renamed(name)
                    raise _unknown(name, part, known, f"those of this section in {source}")
                return
            item = item[part]
        elif isinstance(item, list):
            if not re.fullmatch(r"-?\d+", part) or not -len(item) <= int(part) < len(item):
                raise InputError(f"unknown option --{name}: there are {len(item)} entries, counted from 0, in {source}")
            item = item[int(part)]
        else:
            return  # a reference or an expression, which only MONAI can follow


def _arguments(section: dict) -> set[str] | None:
    """Return the names that a section of a config may have, None when it may have any."""
    known = set(section)
    if "_target_" not in section:
        return known
    from monai.bundle.config_item import ConfigComponent  # not at the top: takes seconds, as do the targets

    target = pydoc.locate(section["_target_"]) if isinstance(section["_target_"], str) else section["_target_"]
    if not callable(target):
        return None
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return known | ConfigComponent.non_arg_keys | {parameter.name for parameter in parameters}


def _unknown(name: str, part: str, known: Iterable[str], where: str) -> InputError:
    nearest = difflib.get_close_matches(part, sorted(known), n=1)
    whole = name[: len(name) - len(part)] + nearest[0] if nearest and name.endswith(part) else "".join(nearest)
    advice = f"did you mean --{whole}? " if nearest else ""
    return InputError(f"unknown option --{name}: {advice}(the options are {where})")
