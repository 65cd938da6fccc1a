# SPDX-License-Identifier: Apache-2.0
"""What makes ``python -m monai.bundle run`` answer a mistake with one clear line."""

from __future__ import annotations

import difflib
import inspect
import logging
import pydoc
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.config_item import ConfigComponent
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from tqdm import tqdm

from scripts.errors import InputError, one_line

_BELOW_ALL_LEVELS = -1  # a log record of this level is shown by no handler
_RUN_IDS = ("run", "check", "help")  # what a config can be asked for
_prepared = False  # whether the workflow that the command line asked for has been prepared


def prepare(also_accepted: Sequence[str] = (), debug: bool | str = False) -> None:
    """
    Prepare a run from the command line; the first entry of the ``run`` list of every config.

    It makes errors of the user end in one line and refuses options that nothing reads, which MONAI would take in
    silence. It does nothing in workflows that were not started by ``python -m monai.bundle run``: those that
    Python code makes, and those that a config runs inside another config's run, for the command line is not theirs.

    MONAI itself answers, before this is called and with a traceback, when a config file does not exist or is no YAML,
    the run id does not exist, or the section of a nested option does not, as ``infrer`` in ``--infrer#overlap 0.5``.
    The ``d2r`` command (:mod:`scripts.d2r`) calls :func:`check_command` before MONAI, so that these are one line too.

    Args:
        also_accepted: options that are not in the config file and yet have a meaning.
        debug: whether to leave tracebacks, logs and warnings as they are.

    Raises:
        InputError: an option is unknown.
    """
    global _prepared
    if _prepared or not _started_from_command_line():
        return
    _prepared = True
    if not true_or_false(debug, "debug"):
        show_errors_in_one_line()
    check_command(sys.argv[2:], also_accepted)


def check_command(words: Sequence[str], also_accepted: Sequence[str] = ()) -> None:
    """
    Check the words of a command against the config files that it names.

    Args:
        words: what follows ``python -m monai.bundle run``.
        also_accepted: options that are not in the config files and yet have a meaning.

    Raises:
        InputError: a config file does not exist or cannot be parsed; the run id is not in it; an option is neither in it
            nor MONAI's own.
    """
    options = _options(words)
    if isinstance(options.get("args_file"), str):
        options = {**_load("args_file", options["args_file"]), **options}
    if options.get("config_file") is None:
        return  # a workflow class without a config
    config = _load("config_file", options["config_file"])
    run_id = str(options.get("run_id") or "run")
    if run_id not in config:
        nearest = difflib.get_close_matches(run_id, [name for name in _RUN_IDS if name in config], n=1)
        advice = f"did you mean {nearest[0]}" if nearest else f"give one of {', '.join(_RUN_IDS)}"
        raise InputError(f"nothing to run is called {run_id}: {advice}")
    reserved = {"workflow_name", "_meta_", *_parameters(run), *_parameters(ConfigWorkflow), *also_accepted}
    if options.get("tracking") in DEFAULT_EXP_MGMT_SETTINGS:
        tracking: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS[options["tracking"]]
        reserved.update(tracking["configs"])
    files = options["config_file"]
    source = files if isinstance(files, str) else " and ".join(map(str, files))
    for name, value in options.items():
        section, *rest = ReferenceResolver.split_id(name)
        if section not in config and section not in reserved:
            names = [key for key in config if not key.startswith("_") and key != "imports"]
            if f"no{name}" in config:  # Fire reads a name without a value as a switch, and no... as switching off
                raise InputError(f"--no{name} has no value: write --no{name} VALUE")
            raise _unknown(name, section, [*names, *reserved], f"the top-level names in {source}")
        if name in _RUN_IDS and value is True:  # it would put True in place of that section, and run
            raise InputError(f"--{name} is no option: write the word {name} after run, without hyphens")
        if isinstance(value, str) and value.startswith("%"):
            _load(name, ConfigParser.split_path_id(value[1:])[0])
        if rest and section in config and section not in options:
            _check_nested(name, rest, config[section], source)


def wants_debug(words: Sequence[str]) -> bool:
    """Whether the words of a command ask for full tracebacks."""
    return str(_options(words).get("debug", False)).lower() == "true"


def require(**options: Any) -> None:
    """
    Check that options which have no default were given.

    Args:
        options: values by option name; None stands for a missing option.

    Raises:
        InputError: one is None, or True, which is what the command line makes of a name without a value.
    """
    for name, value in options.items():
        if value is None or value is True:
            raise InputError(f"--{name} is missing: add --{name} and its value to the command")


def true_or_false(value: bool | str, name: str) -> bool:
    """
    Return the meaning of a switch; the command line gives ``true`` and ``false`` as text, which would both be true.

    Args:
        value: True, False or their names in any case.
        name: option name for the error.

    Raises:
        InputError: the value is something else.
    """
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise InputError(f"--{name} {value}: must be true or false")


def show_errors_in_one_line() -> None:
    """
    Print an :class:`InputError` as one line on stderr, wherever in a chain of exceptions it stands, and drop what
    MONAI and Ignite log about it; do the same for Ctrl-C. Other exceptions keep their traceback. The warnings of the
    libraries, which a user cannot act on, are silenced.
    """
    sys.excepthook = _print_exception
    make_record = logging.getLogRecordFactory()

    def make_quiet_record(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = make_record(*arguments, **keywords)
        if _handling_users_error():
            record.levelno = _BELOW_ALL_LEVELS
        return record

    # the record factory, because the loggers of transforms and handlers do not exist yet
    logging.setLogRecordFactory(make_quiet_record)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(monai|torch|ignite)(\.|$)")


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The replacement of ``sys.excepthook``; the exit status is Python's own."""
    for bar in list(getattr(tqdm, "_instances", [])):
        bar.close()  # an open bar would redraw itself below the message
    user_error = _input_error(error)
    if user_error is not None:
        print(f"error: {' '.join(str(user_error).split())}", file=sys.stderr)
    elif issubclass(kind, KeyboardInterrupt):
        # on a new line, after the progress bar
        print("\ninterrupted; run the same command again to go on", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)


def _input_error(error: BaseException | None) -> InputError | None:
    """Return the innermost InputError among an exception and its causes."""
    found = None
    while error is not None:
        if isinstance(error, InputError):
            found = error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _handling_users_error() -> bool:
    """Whether an error of the user is being passed on, as it is while libraries log what they know about it."""
    error = sys.exc_info()[1]
    return _input_error(error) is not None or isinstance(error, KeyboardInterrupt)


def _started_from_command_line() -> bool:
    return Path(sys.argv[0]).parts[-2:] == ("bundle", "__main__.py") and sys.argv[1:2] in (["run"], ["run_workflow"])


def _load(option: str, files: Any) -> dict[str, Any]:
    """Return the content of config files, or raise InputError when one does not exist or is no YAML or JSON."""
    separate = files.split(",") if isinstance(files, str) and not Path(files).is_file() else files
    for file in [separate] if isinstance(separate, str) else separate:
        if not Path(file).is_file():
            raise InputError(f"--{option} {file}: no such file")
        try:
            ConfigParser.load_config_file(file)
        except (yaml.YAMLError, ValueError) as error:  # JSON has ValueErrors
            raise InputError(f"--{option} {file}: cannot be parsed: {_place_of(error)}") from error
    try:
        return ConfigParser.load_config_files(files)
    except LookupError as error:
        raise InputError(f"--{option} {files}: one does not fit the other: {one_line(error)}") from error


def _place_of(error: Exception) -> str:
    """Return what is wrong in a file and where, on one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return one_line(error)


def _check_nested(name: str, parts: Iterable[str], item: Any, source: str) -> None:
    """Raise InputError when a part of a nested option does not exist in the config."""
    for part in parts:
        if isinstance(item, dict):
            if part not in item:
                known = _arguments(item)
                if known is not None and part not in known:
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


def _parameters(function: Any) -> list[str]:
    """Return the names of a callable's parameters, without those that stand for any number."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    """
    Return the options of a command line by name, read as Fire does, which MONAI uses.

    ``--name value``, ``--name=value`` and ``-name value`` are the same; hyphens in a name are underscores; a name
    followed by no value is True, or False for ``--noname``; what follows the last ``--`` is for Fire itself;
    values without a name are the first parameters of ``run`` that were not named.

    Args:
        arguments: what follows ``run``.
    """
    words = list(arguments)
    if "--" in words:
        words = words[: len(words) - 1 - words[::-1].index("--")]
    parameters = _parameters(run)
    options: dict[str, Any] = {}
    unnamed: list[str] = []
    while words:
        word = words.pop(0)
        if not _is_name(word):
            unnamed.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if equals:
            options[name] = DefaultParseValue(value)
        elif words and not _is_name(words[0]):
            options[name] = DefaultParseValue(words.pop(0))
        elif name.startswith("no") and name not in parameters:
            options[name[2:]] = False
        else:
            options[name] = True
    options.update(zip((name for name in parameters if name not in options), unnamed))
    return options


def _is_name(word: str) -> bool:
    """Whether Fire takes a word for the name of an option; a negative number is a value."""
    return word.startswith("--") or re.match(r"-[a-zA-Z]", word) is not None
