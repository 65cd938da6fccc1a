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

"""Prepares a run: its options are checked and converted before the rest of the config is evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigItem
from scripts.cli.command_check import check_command, check_has_value, check_typed, types_of
from scripts.cli.config_files import config_folder
from scripts.cli.failures import input_error, show_errors_in_one_line
from scripts.cli.option_help import Option, format_help, read_help
from scripts.cli.option_types import kept_as_typed
from scripts.cli.renamed import RENAMED, check_effect, check_renamed
from scripts.cli.signals import stop_on_signals
from scripts.cli.single_process import check_single_process
from scripts.cli.words import Typed, is_array_name, read_command, words_given
from scripts.errors import InputError, one_line

_prepared = False  # whether the workflow that the command line asked for has been prepared


def prepare(config: str, debug: bool | str = False) -> None:
    """
    Check and convert the options of the workflow whose config names this function in ``initialize``.

    Each option is checked against its type and range and replaced by the value that was meant: "true" becomes True,
    "cpu" a ``torch.device``, and a path of the command line stays as it was typed. With the run id ``help`` the options
    are printed instead, and nothing is left to run.

    In a run from the command line (``python -m monai.bundle run`` or ``d2r``) it also makes errors end in one line and
    signals clean up, and refuses words and options that MONAI would silently ignore, and missing options. Workflows
    made by Python code, and those nested in another run, keep MONAI's behavior in these respects.
    ``docs/how-to/commands.md`` lists what MONAI answers with a traceback before this function is called.

    A config that lies over that of a training and has a section ``over_training`` runs that section in place of ``run``.

    Args:
        config: file name in the folder of the bundle's configs, whose options are checked.
        debug: whether to leave tracebacks, logs and warnings as they are.

    Raises:
        InputError: an option is unknown or missing, has another name now, or has a value that it cannot have; or this is
            one of several processes of ``torchrun``.
    """
    global _prepared
    words, typed = words_given(), {}
    from_command_line = words is not None and not _prepared
    if from_command_line:
        _prepared = True
        if str(debug).lower() != "true":
            show_errors_in_one_line()
        stop_on_signals()
    check_single_process()
    if words is not None and from_command_line:
        check_command(words)
        typed = read_command(words).options
    workflow = _running_workflow()
    if workflow is None:
        return
    file = config_folder() / config
    if workflow.run_id == "help":
        print(format_help(file))
        _replace(workflow.parser, "help", [])
        return
    restore_dataset(workflow.parser, file)
    check_names(workflow.parser)
    set_options(workflow.parser, read_help(file).options, typed)
    if "training_config" in workflow.parser and "over_training" in workflow.parser:
        training = config_folder() / str(workflow.parser.get("training_config"))
        set_options(workflow.parser, read_help(training).options, typed)
        if workflow.run_id == "run":
            workflow.run_id = "over_training"


def restore_dataset(parser: ConfigParser, file: Path) -> None:
    """
    Take a word that was given for ``dataset`` as the option ``array``, and restore the section of that name in the
    config.

    Args:
        parser: of a workflow.
        file: of the bundle's config.
    """
    value = parser.get("dataset")
    if not is_array_name(value):
        return
    section = ConfigParser.load_config_file(file).get("dataset")
    config: Any = parser.config
    if section is None:
        del config["dataset"]
    else:
        config["dataset"] = section
    config["array"] = str(value)
    parser.parse(reset=True)


def check_names(parser: ConfigParser) -> None:
    """
    Refuse settings under a former name, and settings without effect.

    Args:
        parser: of a workflow; MONAI silently ignores unknown names.

    Raises:
        InputError: there is one.
    """
    for name in RENAMED:
        if name in parser:
            check_renamed(name)
    check_effect(parser.get)


def set_options(parser: ConfigParser, options: Sequence[Option], typed: Mapping[str, Typed]) -> None:
    """
    Check the options of a config and replace them by the values that were meant.

    Args:
        parser: of the running workflow.
        options: of its config.
        typed: what was given on the command line.

    Raises:
        InputError: a value is of another type than the option, or out of its range.
    """
    for name, kind in types_of(options).items():
        if name not in typed:
            continue
        check_has_value(name, typed[name], kind)
        if kind.kind == "path":
            check_typed(name, typed[name], kind)
            _replace(parser, name, kept_as_typed(str(typed[name].text)))
    checked = [option for option in options if option.type is not None and option.type.kind != "path"]
    for option in sorted(checked, key=lambda option: _turn(option, parser.get(option.name))):
        default, value = yaml.safe_load(option.default), parser.get(option.name)
        if repr(value) != repr(default):
            text = typed[option.name].text if option.name in typed else None
            value = _evaluated(parser, option.name, value)
            _replace(parser, option.name, option.type.check(option.name, value, text, default))  # type: ignore[union-attr]


def _turn(option: Option, value: Any) -> int:
    """Order of evaluation: the device first, since defaults depend on it, and expressions last."""
    is_expression = isinstance(value, str) and value.startswith("$")
    return 2 if is_expression else int(option.name != "device")


def _running_workflow() -> ConfigWorkflow | None:
    """
    Return the workflow that called, or None.

    A config cannot refer to the workflow that runs it, so the call stack is searched for it.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def _replace(parser: ConfigParser, name: str, value: Any) -> None:
    """Replace an entry of a parsed config without parsing all of it again."""
    parser.config[name] = value  # type: ignore[index]
    parser.ref_resolver.items[name] = ConfigItem(config=value, id=name)
    parser.ref_resolver.resolved_content.pop(name, None)


def _evaluated(parser: ConfigParser, name: str, value: Any) -> Any:
    """Return the value of an option that may be an expression, or hold some."""
    if not isinstance(value, (str, list, tuple, dict)):
        return value
    try:
        return parser.get_parsed_content(name)
    except Exception as error:  # whatever the code that was given raises
        if input_error(error) is not None:
            raise
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        raise InputError(f"--{name} {value}: cannot be evaluated: {type(error).__name__}: {one_line(error)}") from error
