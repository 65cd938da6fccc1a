# SPDX-License-Identifier: Apache-2.0
"""What a run from the command line needs: its words checked, its options checked and set."""

from __future__ import annotations

import ast
import difflib
import inspect
import pydoc
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.config_item import ConfigComponent, ConfigItem
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from scripts.cli.failures import input_error, show_errors_in_one_line
from scripts.cli.option_help import Option, config_folder, read_help
from scripts.cli.option_types import OptionType, kept_as_typed, parse_type
from scripts.cli.signals import stop_on_signals
from scripts.errors import InputError, one_line

_RUN_IDS = ("run", "check", "help")  # what a config can be asked for
_PATHS_BESIDE = ("bundle_root", "dataset_dir", "output_dir")  # paths, whether or not a config offers them as options
_prepared = False  # whether the workflow that the command line asked for has been prepared
_given: list[str] | None = None  # the words of a command that did not come by ``python -m monai.bundle run``
_typed: dict[str, Typed] = {}  # options of the command line that have not yet reached their workflow


class Typed(NamedTuple):
    """An option of a command line.

    Attributes:
        value: as Fire, which MONAI uses, reads it.
        text: as it was typed, None for a name without a value.
    """

    value: Any
    text: str | None


class Command(NamedTuple):
    """What a command line says.

    Attributes:
        options: by name.
        unnamed: words without a name, each with the option that it follows, None at the beginning.
    """

    options: dict[str, Typed]
    unnamed: list[tuple[str, str | None]]


def prepare(config: str | None = None, also_accepted: Sequence[str] = (), debug: bool | str = False) -> None:
    """
    Prepare a run; the first entry of the lists ``initialize`` and ``run`` of every config.

    From the command line it makes errors end in one line and signals in clearing up, and refuses words and options that nothing reads,
    which MONAI would take in silence. It does none of that in workflows that were not started by ``python -m monai.bundle run`` or
    ``d2r``: those that Python code makes, and those that a config runs inside another config's run.

    Given a config it also checks the type and range of each option, in any workflow, before anything of the run is evaluated, and takes
    the paths of the command line as they were typed.

    MONAI itself answers, before this is called and with a traceback, what ``docs/how-to/commands.md`` lists. The ``d2r`` command
    (:func:`run_command`) looks at the words before MONAI, so that these are one line too.

    Args:
        config: file name in the folder of the bundle's configs, whose options are checked.
        also_accepted: options that are not in the config file and yet have a meaning.
        debug: whether to leave tracebacks, logs and warnings as they are.

    Raises:
        InputError: an option is unknown, or has a value that it cannot have.
    """
    global _prepared, _typed
    if not _prepared and started_from_command_line():
        _prepared = True
        if str(debug).lower() != "true":
            show_errors_in_one_line()
        stop_on_signals()
        words = sys.argv[2:] if _given is None else _given
        check_command(words, also_accepted)
        _typed = read_command(words).options
    workflow = _running_workflow()
    if config is not None and workflow is not None:
        typed, _typed = _typed, {}  # a workflow that runs inside this one has options of its own
        set_options(workflow.parser, read_help(config_folder() / config).options, typed)


def run_command(words: Sequence[str]) -> None:
    """
    Do what ``python -m monai.bundle run`` does, with the words looked at before MONAI sees them.

    Args:
        words: what would follow ``run``.

    Raises:
        InputError: as :func:`check_command`, and as the run itself.
    """
    global _given
    _given = list(words)
    if not wants_debug(words):
        show_errors_in_one_line()
    stop_on_signals()
    check_command(words)
    command = read_command(words)
    types = _types_of(command)
    options: dict[str, Any] = {}
    for name, given in command.options.items():
        if _is_path(name, types) and given.text is not None:
            options[name] = kept_as_typed(given.text)
        else:
            options[name] = given.value
    run(**options)


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
    types = {option.name: option.type for option in options if option.type is not None}
    for name, given in typed.items():
        kind = types.get(name, parse_type("path") if name in _PATHS_BESIDE else None)
        if kind is None or kind.kind == "true or false":
            continue
        if given.text is None:
            raise InputError(f"--{name} has no value: {kind.wanted(name)}")
        if kind.kind == "path":
            _replace(parser, name, kept_as_typed(kind.check(name, given.value, given.text)))
    for option in sorted(options, key=lambda each: each.name != "device"):  # others may follow from the device
        if option.type is not None and option.type.kind != "path" and option.name in parser.config:  # type: ignore[operator]
            default = yaml.safe_load(option.default)
            value = parser[option.name]
            if repr(value) != repr(default):
                text = typed[option.name].text if option.name in typed else None
                checked = option.type.check(option.name, _evaluated(parser, option.name, value), text, default)
                _replace(parser, option.name, checked)


def check_command(words: Sequence[str], also_accepted: Sequence[str] = ()) -> None:
    """
    Check the words of a command against the config files that it names.

    Args:
        words: what follows ``python -m monai.bundle run``.
        also_accepted: options that are not in the config files and yet have a meaning.

    Raises:
        InputError: a config file does not exist or cannot be parsed; the run id is not in it; an option is neither in it
            nor MONAI's own; a word belongs to no option.
    """
    command = read_command(words)
    options = {name: given.value for name, given in command.options.items()}
    if options.get("config_file") is None:
        return  # a workflow class without a config
    config = _load("config_file", options["config_file"])
    types = _types_of(command)
    _check_unnamed(command, config, types)
    reserved = {"workflow_name", "_meta_", *_parameters(run), *_parameters(ConfigWorkflow), *also_accepted}
    if options.get("tracking") in DEFAULT_EXP_MGMT_SETTINGS:
        tracking: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS[options["tracking"]]
        reserved.update(tracking["configs"])
    files = options["config_file"]
    source = files if isinstance(files, str) else " and ".join(map(str, files))
    for name, value in options.items():
        section, *rest = ReferenceResolver.split_id(name)
        if section not in config and section not in reserved:
            names = [key for key in config if not key.startswith("_") and key not in ("imports", "initialize")]
            if f"no{name}" in config:  # Fire reads a name without a value as a switch, and no... as switching off
                raise InputError(f"--no{name} has no value: write --no{name} VALUE")
            raise _unknown(name, section, [*names, *reserved], f"the top-level names in {source}")
        if name in _RUN_IDS and value is True:  # it would put True in place of that section, and run
            raise InputError(f"--{name} is no option: write the word {name} after run, without hyphens")
        if isinstance(value, str) and not _is_path(name, types):
            _check_code(name, value, config)
        if rest and section in config and section not in options:
            _check_nested(name, rest, config[section], source)


def wants_debug(words: Sequence[str]) -> bool:
    """Whether the words of a command ask for full tracebacks."""
    debug = _read_words(words).options.get("debug")
    return debug is not None and str(debug.value).lower() == "true"


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


def started_from_command_line() -> bool:
    """Whether this process is a run that the command line asked for."""
    by_monai = Path(sys.argv[0]).parts[-2:] == ("bundle", "__main__.py") and sys.argv[1:2] in (
        ["run"],
        ["run_workflow"],
    )
    return by_monai or _given is not None


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


def _is_path(name: str, types: Mapping[str, OptionType]) -> bool:
    return name in _PATHS_BESIDE or (name in types and types[name].kind == "path")


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


def _types_of(command: Command) -> dict[str, OptionType]:
    """Return the types of the options of the config files that a command names."""
    if "config_file" not in command.options:
        return {}
    types: dict[str, OptionType] = {}
    for file in _separate(command.options["config_file"].value):
        if Path(file).suffix in (".yaml", ".yml") and Path(file).is_file():
            try:
                options = read_help(file).options
            except ValueError:  # a file that changes some values of another has no options of its own
                continue
            types.update({option.name: option.type for option in options if option.type is not None})
    return types


def _check_unnamed(command: Command, config: Mapping[str, Any], types: Mapping[str, OptionType]) -> None:
    """Raise InputError when a word that stands without an option is not what to run."""
    given = command.options.get("run_id", Typed(None, None))
    run_id = "run" if given.value is None else str(given.value)
    strays = command.unnamed
    by_position = bool(strays) and strays[0][0] == given.text
    if run_id not in config or run_id in types:
        nearest = difflib.get_close_matches(run_id, [name for name in _RUN_IDS if name in config], n=1)
        if by_position and not nearest and (strays[0][1] is not None or re.search("[./]", run_id)):
            raise _stray(command, *strays[0], types)
        advice = f"did you mean {nearest[0]}" if nearest else f"give one of {', '.join(_RUN_IDS)}"
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
    first = next((name for name, kind in types.items() if kind.kind == "path"), None)
    if first is not None and first not in command.options:
        return InputError(f"{word} stands without an option: write --{first} {word}")
    return InputError(f"{word} stands without an option: write --NAME {word}, or leave it out")


def _check_code(name: str, value: str, config: Mapping[str, Any]) -> None:
    """Raise InputError when a value asks MONAI for an import or a part of a file that cannot be."""
    if value.startswith("%"):
        file, part = ConfigParser.split_path_id(value[1:])
        source = _load(name, file) if file else config
        if part and part not in ConfigParser(config=source):
            raise InputError(f"--{name} {value}: {file or 'the config'} has no {part}")
    if value.startswith("$") and "import" in value:
        try:
            ast.parse(value[1:])
        except SyntaxError as error:
            raise InputError(f"--{name} {value}: what follows $ is no Python: {one_line(error)}") from error


def _separate(files: Any) -> list[str]:
    """Return the names of one or more config files as a list; on the command line they may be separated by commas."""
    if isinstance(files, str):
        return files.split(",") if "," in files and not Path(files).is_file() else [files]
    return [str(file) for file in files] if isinstance(files, (list, tuple)) else [str(files)]


def _load(option: str, files: Any) -> dict[str, Any]:
    """Return the content of config files, or raise InputError when one does not exist or is no YAML or JSON."""
    for file in _separate(files):
        if not Path(file).is_file():
            raise InputError(f"--{option} {file}: no such file")
        try:
            content = ConfigParser.load_config_file(file)
        except (yaml.YAMLError, ValueError) as error:  # JSON has ValueErrors
            raise InputError(f"--{option} {file}: cannot be parsed: {_place_of(error)}") from error
        if not isinstance(content, dict):
            raise InputError(f"--{option} {file}: has no names with values, as a config has")
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


def read_command(arguments: Sequence[str]) -> Command:
    """
    Return what a command line says, read as Fire does, which MONAI uses.

    ``--name value``, ``--name=value`` and ``-name value`` are the same; hyphens in a name are underscores; a name
    followed by no value is True, or False for ``--noname``; what follows the last ``--`` is for Fire itself;
    values without a name are the first parameters of ``run`` that were not named. The options of an ``--args_file`` stand in its place.

    Args:
        arguments: what follows ``run``.

    Raises:
        InputError: the ``--args_file`` cannot be read.
    """
    options, unnamed = _read_words(arguments)
    if "args_file" in options and isinstance(options["args_file"].value, str):
        stored = _load("args_file", options.pop("args_file").value)
        options = {**{name: Typed(value, str(value)) for name, value in stored.items()}, **options}
    return Command(options, unnamed)


def _read_words(arguments: Sequence[str]) -> Command:
    """Return what a command line says without what stands in an ``--args_file``."""
    words = list(arguments)
    if "--" in words:
        words = words[: len(words) - 1 - words[::-1].index("--")]
    parameters = _parameters(run)
    options: dict[str, Typed] = {}
    unnamed: list[tuple[str, str | None]] = []
    last: str | None = None
    while words:
        word = words.pop(0)
        if not _is_name(word):
            unnamed.append((word, last))
            continue
        name, equals, value = word.lstrip("-").partition("=")
        last = name = name.replace("-", "_")
        if equals:
            options[name] = Typed(DefaultParseValue(value), value)
        elif words and not _is_name(words[0]):
            value = words.pop(0)
            options[name] = Typed(DefaultParseValue(value), value)
        elif name.startswith("no") and name not in parameters:
            options[name[2:]] = Typed(False, None)
        else:
            options[name] = Typed(True, None)
    by_position = {
        name: Typed(DefaultParseValue(word), word)
        for name, (word, _) in zip((name for name in parameters if name not in options), unnamed)
    }
    options.update(by_position)
    return Command(options, unnamed)


def _is_name(word: str) -> bool:
    """Whether Fire takes a word for the name of an option; a negative number is a value."""
    return word.startswith("--") or re.match(r"-[a-zA-Z]", word) is not None
