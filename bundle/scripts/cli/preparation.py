# SPDX-License-Identifier: Apache-2.0
"""Prepares a run, whoever starts it: its options are checked and made what was meant, before anything of it is evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
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
from scripts.cli.words import Typed, read_command, words_given
from scripts.errors import InputError, one_line

_prepared = False  # whether the workflow that the command line asked for has been prepared


def prepare(config: str, debug: bool | str = False) -> None:
    """
    Prepare the workflow whose config names this function in ``initialize``.

    The type and range of each option is checked, and its value made what was meant: "true" is True, "cpu" a ``torch.device``, and a path
    of the command line what was typed. A workflow with the run id ``help`` prints its options instead, and has nothing to run.

    From the command line, by ``python -m monai.bundle run`` or ``d2r``, it also has errors end in one line and signals in clearing up, and
    refuses words and options that nothing reads, which MONAI would take in silence, and options that are missing. It does none of that
    in workflows that Python code makes, nor in those that run inside another one. What MONAI answers before this
    is called, with a traceback, is listed in ``docs/how-to/commands.md``.

    Args:
        config: file name in the folder of the bundle's configs, whose options are checked.
        debug: whether to leave tracebacks, logs and warnings as they are.

    Raises:
        InputError: an option is unknown or missing, has another name now, or has a value that it cannot have.
    """
    global _prepared
    words, typed = words_given(), {}
    if words is not None and not _prepared:
        _prepared = True
        if str(debug).lower() != "true":
            show_errors_in_one_line()
        stop_on_signals()
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
    check_names(workflow.parser)
    set_options(workflow.parser, read_help(file).options, typed)


def check_names(parser: ConfigParser) -> None:
    """
    Check that nothing is set by an old name, or without an effect.

    Args:
        parser: of a workflow; MONAI takes what it does not know in silence.

    Raises:
        InputError: something is.
    """
    for name in RENAMED:
        if name in parser:
            check_renamed(name)
    check_effect(parser.get)


def set_options(parser: ConfigParser, options: Sequence[Option], typed: Mapping[str, Typed]) -> None:
    """
    Check the options of a config and put the values that were meant in their place.

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
    """When an option is checked: others may follow from the device, and expressions from any other."""
    is_expression = isinstance(value, str) and value.startswith("$")
    return 2 if is_expression else int(option.name != "device")


def _running_workflow() -> ConfigWorkflow | None:
    """
    Return the workflow that called, or None.

    A config has no name for the workflow that runs it, so it is looked for among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def _replace(parser: ConfigParser, name: str, value: Any) -> None:
    """Put a value in place of an entry of a config that is already parsed, without parsing all of it anew."""
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
