# SPDX-License-Identifier: Apache-2.0
"""The error that a user can put right, and the wording of those of libraries."""

from __future__ import annotations


class InputError(ValueError):
    """
    Something in the user's files or options is wrong.

    The message is one line that names the file or option, says what is wrong and what to do. On the command line it is
    printed alone, without a traceback (see :mod:`scripts.command_line`).
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
