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

"""
The ``d2r`` command: ``d2r inference check --volume IN.tif`` is ``python -m monai.bundle run check --config_file
<bundle>/configs/inference.yaml --volume IN.tif``.

It works from any folder, takes any path literally, and answers help and mistakes before MONAI and torch are imported,
including mistakes that MONAI answers with a traceback. ``eval "$(d2r --completion bash)"`` sets up completion of jobs,
options and their values in bash. Without an installation, ``python bundle/scripts/cli/d2r.py`` is the same command.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of the folder of this file
elif __name__ != "scripts.cli.d2r":  # installed as d2r_bundle, while the configs import scripts.<module>
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.cli.command_check import check_command, options_of, types_of
from scripts.cli.config_files import config_folder, separate
from scripts.cli.failures import show_errors_in_one_line
from scripts.cli.option_help import Option, format_help, read_help
from scripts.cli.option_types import kept_as_typed
from scripts.cli.signals import stop_on_signals
from scripts.cli.single_process import check_single_process
from scripts.cli.words import Command, give_words, read_command, wants_debug

_COMPLETION = """type -P d2r > /dev/null || d2r() {{ "{python}" "{script}" "$@"; }}
_d2r() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words="{jobs}"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
        case $word in -*) ;; *) [ "$COMP_CWORD" -eq 2 ] && words="check help" || words= ;; esac
        case ${{COMP_WORDS[1]}}${{COMP_WORDS[COMP_CWORD - 1]}} in
{values}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _d2r d2r"""


def main(words: Sequence[str] | None = None) -> int:
    """
    Do what a command asks for.

    Args:
        words: name of a config and what follows it; by default those of this process.

    Returns:
        The exit status.

    Raises:
        InputError: an option is wrong, as :func:`scripts.cli.command_check.check_command` finds, or the run itself.
    """
    job, *others = (list(words) if words is not None else sys.argv[1:]) or ["help"]
    if [job, *others] == ["--completion", "bash"]:
        print(completion())
        return 0
    if job in ("-h", "--help", "help"):
        print("usage: d2r JOB [check | help] --option VALUE ...\n")
        for name, file in jobs().items():
            print(f"  {name:<16} {read_help(file).description[0].partition('. ')[0].rstrip('.')}")
        print("\nd2r JOB help lists the options of a job; d2r JOB check tells what it would do, and does none of it.")
        return 0
    if job not in jobs():
        nearest = difflib.get_close_matches(job, jobs(), n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(jobs())}"
        print(f"error: nothing is called {job}: {advice}", file=sys.stderr)
        return 1
    run_id = [others.pop(0)] if others and not others[0].startswith("-") else []
    run_command([*run_id, "--config_file", str(jobs()[job]), *others])
    return 0


def run_command(words: Sequence[str]) -> None:
    """
    Do what ``python -m monai.bundle run`` does, after checking the words.

    Args:
        words: what would follow ``run``.

    Raises:
        InputError: as :func:`scripts.cli.command_check.check_command`, or the run itself.
    """
    if not wants_debug(words):
        show_errors_in_one_line()
    stop_on_signals()
    check_single_process()
    check_command(words)
    command = read_command(words)
    if command.run_id == "help":
        print(format_help(separate(command.options["config_file"].value)[0]))
        return
    from monai.bundle import run  # not at the top: takes seconds

    give_words(words)
    run(**_for_monai(command))


def jobs() -> dict[str, Path]:
    """Config files by what they are called on the command line."""
    return {file.stem: file for file in sorted(config_folder().glob("*.yaml"))}


def completion() -> str:
    """Return the bash code that completes ``d2r``, and defines it where it is not installed."""
    options = {name: read_help(file).options for name, file in jobs().items()}
    return _COMPLETION.format(
        python=sys.executable,
        script=Path(__file__).resolve(),
        jobs=" ".join(options),
        options="\n".join(
            f'            {name}) words="{" ".join(f"--{option.name}" for option in offered)}" ;;'
            for name, offered in options.items()
        ),
        values="\n".join(
            f'            {name}--{option.name}) words="{" ".join(_values_of(option))}" ;;'
            for name, offered in options.items()
            for option in offered
            if _values_of(option)
        ),
    )


def _values_of(option: Option) -> tuple[str, ...]:
    """Return the values that an option can have, if they can be listed."""
    kind = option.type.kind if option.type is not None else ""
    if kind == "choice" and option.type is not None:
        return option.type.names
    return {"true or false": ("true", "false"), "device": ("cpu", "cuda")}.get(kind, ())


def _for_monai(command: Command) -> dict[str, Any]:
    """Return the options of a command as the parameters of ``monai.bundle.run``."""
    types = types_of(options_of(command))
    return {
        name: (
            kept_as_typed(given.text)
            if name in types and types[name].kind == "path" and given.text is not None
            else given.value
        )
        for name, given in command.options.items()
    }


if __name__ == "__main__":
    sys.exit(main())
