# SPDX-License-Identifier: Apache-2.0
"""Work that goes on beside the computation: results leave the GPU and are written while it computes the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

WAITING = 4
"""Pieces of work that may wait; they hold results in memory."""


class Background:
    """One thread that does pieces of work in their order, a context manager.

    When the block ends, what is still to do is done first; when it ends in an exception, Ctrl-C too, what has not begun is dropped.
    An exception of the work ends the block at the next call, or at its end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()

    def __enter__(self) -> Background:
        return self

    def run(self, work: Callable[[], object]) -> None:
        """Have ``work`` done; waits while too much of it is there already."""
        while self._waiting and (len(self._waiting) >= WAITING or self._waiting[0].done()):
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
    """Begin to copy a tensor to main memory; what is returned waits for the copy and gives it."""
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
    """A tensor of main memory on the device; the copy waits for nothing that the device computes."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
