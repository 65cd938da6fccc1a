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

"""Work on the parts of a volume in several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

_MOST_THREADS = 8
_MOST_BYTES = 2**26  # of results that are made ahead
_LEAST_BYTES = 2**22  # of a result: over smaller ones the threads wait for each other, and one is faster


def in_threads(function: Callable[[Part], Result], parts: Iterable[Part], size: int) -> Iterator[Result]:
    """
    Return the results of a function for all parts, in their order; some are computed ahead. NumPy computes in several
    threads at once.

    Args:
        function: of a part.
        parts: taken one after the other, by the thread that asks for the results.
        size: bytes of a result. Small ones and very large ones are computed one at a time.
    """
    threads = max(1, min(_MOST_THREADS, os.cpu_count() or 1, _MOST_BYTES // max(1, size)))
    if threads == 1 or size < _LEAST_BYTES:
        yield from map(function, parts)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
