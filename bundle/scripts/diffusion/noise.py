# SPDX-License-Identifier: Apache-2.0
"""The noise that stage I learns to predict."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.inferers import Inferer

from scripts.networks.precision import autocast


class NoiseInferer(Inferer):
    """Stage I training: predicted noise of ``inputs`` (B, 2, H, W) at timesteps t (B,).

    Args:
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable, t: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        with autocast(inputs, self.amp):
            return network(inputs, t).float()
