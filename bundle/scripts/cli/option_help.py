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

"""The options of a config, read from its comments: ``run help`` prints it, and the shell completes it."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from scripts.cli.option_types import OptionType, parse_type

_BEGIN = "# ---- what you choose "
_ANY_MARKER = "# ---- "
_REQUIRED = re.compile(r", required(?P<instead>( or [\w#]+)*)$")
_NAME_WIDTH, _DEFAULT_WIDTH, _LEAST_TEXT_WIDTH = 20, 20, 30


class Option(NamedTuple):
    """One option of a config.

    Attributes:
        name: without hyphens.
        default: the text in the config.
        meaning: the comment beside it, empty if there is none.
        type: what stands in brackets at the beginning of the comment; None if nothing does.
        required: whether the brackets end in ", required": nothing runs without this option,
        instead: or without one of those, ", required or another".
    """

    name: str
    default: str
    meaning: str
    type: OptionType | None = None
    required: bool = False
    instead: tuple[str, ...] = ()


class ConfigHelp(NamedTuple):
    """What the comments of a config say.

    Attributes:
        description: what the config does, one entry a paragraph.
        usage: command lines, each on one line.
        options: in the order of the file.
    """

    description: list[str]
    usage: list[str]
    options: list[Option]


def read_help(path: str | Path) -> ConfigHelp:
    """
    Read the comment at the head of a config and its section "what you choose".

    A line of that section is ``name: default # [type] meaning``, see :mod:`scripts.cli.option_types`; an indented
    comment below it continues the meaning.

    Args:
        path: YAML file.

    Raises:
        ValueError: the config has no such section, or there is no such type.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith(_BEGIN)]
    if not begins:
        raise ValueError(f"{path}: has no line that begins with '{_BEGIN}'")
    description, usage = _read_head(lines)
    options: list[Option] = []
    for line in lines[begins[0] + 1 :]:
        if line.startswith(_ANY_MARKER):
            break
        more = re.match(r"\s+#\s*(.*)", line)
        name = re.match(r"(\w+):\s*(.*)", line)
        if name:
            default, comment = _split_comment(name[2])
            typed = re.match(r"\[(.+?)\]\s*(.*)", comment)
            if typed:
                required = _REQUIRED.search(typed[1])
                kind = parse_type(_REQUIRED.sub("", typed[1]))
                instead = tuple(required["instead"].split(" or ")[1:]) if required else ()
                options.append(Option(name[1], default, typed[2], kind, required is not None, instead))
            else:
                options.append(Option(name[1], default, comment))
        elif more and options:
            options[-1] = options[-1]._replace(meaning=f"{options[-1].meaning} {more[1]}".strip())
    return ConfigHelp(description, usage, options)


def format_help(path: str | Path) -> str:
    """
    Return what a config does, how it is called, and each option with its default, type and meaning.

    Args:
        path: YAML file. A default that is an expression is shown as "computed"; the meaning says what it comes to.
    """
    file = Path(path)
    texts = read_help(file)
    width = min(shutil.get_terminal_size((120, 40)).columns, 120)
    lines = []
    for paragraph in texts.description:
        lines += [*textwrap.wrap(paragraph, width), ""]
    for usage in texts.usage:
        lines += ["usage, from inside the folder of the bundle (from elsewhere: give the config's whole path):"]
        lines += [f"  {usage}", ""]
    lines.append(f"  {'option':<{_NAME_WIDTH}}{'default':<{_DEFAULT_WIDTH}}meaning")
    for option in texts.options:
        default = "needed" if option.required else _shown(option)
        meaning = f"[{option.type.text}] {option.meaning}" if option.type else option.meaning
        lines += _row(f"--{option.name}", default, meaning, width)
    lines.append("")
    if "check:" in (line[:6] for line in file.read_text(encoding="utf-8").splitlines()):
        lines.append("With the word check after run, the same command tells what it would do, and does none of it.")
    lines.append(f"Sections of {file.name} are options too: --section#name VALUE.")
    return "\n".join(lines)


def _read_head(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paragraphs and the indented command lines of the comment that a config begins with."""
    paragraphs: list[str] = [""]
    usage: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        text = line[1:]
        if usage and usage[-1].endswith("\\"):
            usage[-1] = f"{usage[-1][:-1].rstrip()} {text.strip()}"
        elif text.startswith("   "):
            usage.append(text.strip())
        elif text.strip():
            paragraphs[-1] = f"{paragraphs[-1]} {text.strip()}".strip()
        else:
            paragraphs.append("")
    return [paragraph for paragraph in paragraphs if paragraph], usage


def _split_comment(text: str) -> tuple[str, str]:
    """Split ``value # comment``; a # inside quotes belongs to the value."""
    value = yaml.safe_load(f"value: {text}")
    for place in re.finditer(r"(^|\s)#", text):
        before = text[: place.start()].rstrip()
        try:
            if yaml.safe_load(f"value: {before}") == value:
                return before, text[place.end() :].strip()
        except yaml.YAMLError:  # the # stands inside quotes
            continue
    return text.strip(), ""


def _shown(option: Option) -> str:
    value = yaml.safe_load(option.default)
    if isinstance(value, str) and value.startswith(("$", "@")):
        return "computed"
    if value is None or value == "":
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _row(name: str, default: str, meaning: str, width: int) -> list[str]:
    """Return the lines of one option; a default too long for its column comes on a line below the meaning."""
    indent = " " * (2 + _NAME_WIDTH + _DEFAULT_WIDTH)
    fits = len(default) < _DEFAULT_WIDTH
    texts = textwrap.wrap(meaning, max(width - len(indent), _LEAST_TEXT_WIDTH)) or [""]
    texts += [] if fits else [f"default: {default}"]
    first = f"  {name:<{_NAME_WIDTH - 1}} {default if fits else '':<{_DEFAULT_WIDTH}}{texts[0]}".rstrip()
    return [first, *(indent + text for text in texts[1:])]
