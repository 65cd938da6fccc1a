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

"""Results leave the GPU and are written while it computes the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

WAITING = 4
"""Tasks that may run or wait, unless there are more threads; each holds a result in memory."""


class Background:
    """A context manager with a thread that runs tasks in the order in which they are submitted, or with several.

    At the end of the context the remaining tasks are run. Where it ends in an exception, Ctrl-C included, those that
    have not begun are dropped. An exception in a task is raised by the next call of :meth:`run`, or at the end of the
    context.

    Args:
        threads: with more than one, tasks may run in any order.
    """

    def __init__(self, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._most = max(WAITING, threads)
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> Background:
        return self

    def run(self, work: Callable[[], object]) -> None:
        """Submit a task; blocks while as many as may wait are unfinished."""
        while self._waiting and (len(self._waiting) >= self._most or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(work))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


def to_host(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy a tensor to main memory, and return a function that waits for the copy and returns it."""
    if values.device.type != "cuda":
        return lambda: values
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> torch.Tensor:
        arrived.synchronize()
        return copy

    return wait


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on the device; the copy is asynchronous, so that it overlaps with what the device computes."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
