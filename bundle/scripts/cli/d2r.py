#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""
The ``d2r`` command: ``d2r inference check --volume IN.tif`` is ``python -m monai.bundle run check --config_file
<bundle>/configs/inference.yaml --volume IN.tif``.

Beyond that it finds the bundle from any folder, answers in one line the mistakes that MONAI itself would answer with a traceback, and
takes any path as it was typed. ``eval "$(python bundle/scripts/cli/d2r.py --completion bash)"`` gives a shell the command and its options.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    # Python puts the folder of this file first, where io/ and others would hide modules of the same name
    sys.path[0] = str(BUNDLE)

from scripts.cli.option_help import config_folder, read_help  # noqa: E402

_COMPLETION = """d2r() {{ "{python}" "{script}" "$@"; }}
_d2r() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words="{jobs}"
    if [ "$COMP_CWORD" -gt 1 ]; then
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
        case $word in -*) ;; *) [ "$COMP_CWORD" -eq 2 ] && words="check help" || words= ;; esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _d2r d2r"""


def completion() -> str:
    """The lines that make ``d2r`` and its completion known to bash."""
    options = {
        name: " ".join(f"--{option.name}" for option in read_help(file).options) for name, file in jobs().items()
    }
    cases = "\n".join(f'            {name}) words="{words}" ;;' for name, words in options.items())
    script = Path(__file__).resolve()
    return _COMPLETION.format(python=sys.executable, script=script, jobs=" ".join(options), cases=cases)


def jobs() -> dict[str, Path]:
    """Config files by what they are called on the command line."""
    return {file.stem: file for file in sorted(config_folder().glob("*.yaml"))}


def main(words: list[str]) -> int:
    """
    Forward a command to MONAI.

    Args:
        words: name of a config and what follows it.

    Returns:
        The exit status.
    """
    if words == ["--completion", "bash"]:
        print(completion())
        return 0
    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: d2r JOB [check | help] --option VALUE ...\n")
        for name, file in jobs().items():
            print(f"  {name:<16} {read_help(file).description[0]}")
        print("\nd2r JOB help lists the options of a job; d2r JOB check tells what it would do, and does none of it.")
        return 0
    job, *others = words
    if job not in jobs():
        nearest = difflib.get_close_matches(job, jobs(), n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(jobs())}"
        print(f"error: nothing is called {job}: {advice}", file=sys.stderr)
        return 1
    run_id = [others.pop(0)] if others and not others[0].startswith("-") else []

    from scripts.cli.command_line import run_command

    run_command([*run_id, "--config_file", str(jobs()[job]), *others])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
