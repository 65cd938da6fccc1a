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

"""Signals that end a run in the same way as Ctrl-C, so that nothing half-written stays behind."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What ``kill``, a closed terminal and the queue of a cluster send."""


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end. It passes through everything that lets Ctrl-C pass.

    Attributes:
        signal: which one.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


def stop_on_signals() -> None:
    """
    Have the signals raise :class:`Stopped` in the main thread, wherever it is. One that is ignored, as ``nohup`` has
    it, or that other code deals with, stays as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # Python accepts handlers from the main thread alone
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # a second signal, which clusters send when the first seems to have no effect, must not break into the clearing up
    for other in SIGNALS:
        if signal.getsignal(other) is _stop:
            signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)
