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

"""The error that a user can put right, the wording of those of libraries, and warnings that are told once."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)
_NO_MEMORY = (  # how PyTorch says it in RuntimeErrors
    "can't allocate memory",
    "not enough memory",
    "Storage size calculation overflowed",
    "integer multiplication overflow",
    "std::bad_alloc",
    "out of memory",
)
_NO_GPU_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_told: set[str] = set()


class InputError(ValueError):
    """
    Something in the user's files or options is wrong.

    The message is one line that names the file or option, says what is wrong and what to do. On the command line it is
    printed alone, without a traceback (see :mod:`scripts.cli.failures`).
    """


class MemoryShortage(NamedTuple):
    """
    What an exception says of memory that does not suffice.

    Attributes:
        of_gpu: whether it is the memory of a GPU.
        tried: what was asked for, in the words of the library; empty where it does not say.
    """

    of_gpu: bool
    tried: str


def memory_shortage(error: BaseException) -> MemoryShortage | None:
    """
    Tell the exceptions of Python and PyTorch that mean a lack of memory from others.

    Args:
        error: any exception.

    Returns:
        What it says, or None where it means something else.
    """
    text = one_line(error)
    if isinstance(error, MemoryError):
        return MemoryShortage(False, text if text != type(error).__name__ else "")
    if not isinstance(error, RuntimeError):
        return None
    # by its name, for torch takes seconds to import
    if type(error).__name__ == "OutOfMemoryError" or any(words in text for words in _NO_GPU_MEMORY):
        return MemoryShortage(True, text.removeprefix("CUDA out of memory. ").split(". ")[0])
    if any(words in text for words in _NO_MEMORY):
        return MemoryShortage(False, text.split("] ")[-1])
    return None


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
        from tqdm import tqdm  # not at the top: help and mistakes of the command line would wait for it

        _told.add(line)
        with tqdm.external_write_mode():  # not into a progress bar
            logger.warning(line)
