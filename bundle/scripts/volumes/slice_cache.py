# SPDX-License-Identifier: Apache-2.0
"""Decoded slices, of which those that were used last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np


class SliceCache:
    """
    Decodes slices and keeps the least recently used ones no longer than there is room. Any number of threads may ask for slices: they are
    decoded one after the other, and none is decoded twice for two threads.

    Args:
        decode: gives slice z as an array (x, y).
        max_bytes: of the slices that are kept. A larger slice is decoded whenever it is asked for.
    """

    def __init__(self, decode: Callable[[int], np.ndarray], max_bytes: int) -> None:
        self._decode = decode
        self._free = max_bytes
        self._slices: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, index: int) -> np.ndarray:
        """Return slice ``index`` (x, y) without keeping it, as a pass over the whole volume needs it."""
        with self._lock:
            return self._slices[index] if index in self._slices else self._decode(index)

    def keep(self, index: int) -> np.ndarray:
        """Return slice ``index`` (x, y), and keep it for the next time."""
        with self._lock:
            if index in self._slices:
                self._slices.move_to_end(index)
                return self._slices[index]
            decoded = self._decode(index)
            self._slices[index] = decoded
            self._free -= decoded.nbytes
            while self._free < 0:
                self._free += self._slices.popitem(last=False)[1].nbytes
            return decoded

    def clear(self) -> None:
        """Forget the slices."""
        with self._lock:
            while self._slices:
                self._free += self._slices.popitem()[1].nbytes
