# SPDX-License-Identifier: Apache-2.0
"""Warnings about a user's files: each is told once, however often a run opens the file."""

from __future__ import annotations

import logging

from tqdm import tqdm

logger = logging.getLogger(__name__)
_told: set[str] = set()


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
