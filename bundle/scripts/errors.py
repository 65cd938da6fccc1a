# SPDX-License-Identifier: Apache-2.0
"""The error that a user can put right, the wording of those of libraries, and warnings that are told once."""

from __future__ import annotations

import logging

from tqdm import tqdm

logger = logging.getLogger(__name__)
_told: set[str] = set()


class InputError(ValueError):
    """
    Something in the user's files or options is wrong.

    The message is one line that names the file or option, says what is wrong and what to do. On the command line it is
    printed alone, without a traceback (see :mod:`scripts.cli.failures`).
    """


def one_line(error: BaseException) -> str:
    """
    Return the message of an exception on one line.

    Args:
        error: any exception.

    Returns:
        The first line of its message, or its class name when it has none.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def warn_once(line: str) -> None:
    """
    Log a warning, unless this process has logged the same before.

    Args:
        line: names the file, says what is odd and what to do.
    """
    if line not in _told:
        _told.add(line)
        with tqdm.external_write_mode():  # not into a progress bar
            logger.warning(line)
