# SPDX-License-Identifier: Apache-2.0
"""Mixed precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def autocast(tensor: torch.Tensor, amp: bool) -> AbstractContextManager:
    """Mixed precision on the device of ``tensor`` where ``amp`` is true."""
    # bfloat16 keeps single precision's range: no loss scaling, and the same code on CPU and CUDA.
    return torch.autocast(tensor.device.type, torch.bfloat16, enabled=amp)
