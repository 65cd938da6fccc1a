# SPDX-License-Identifier: Apache-2.0
"""How stage III applies its network to sequences of planes."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer

from scripts.networks.precision import autocast


class SequenceInferer(Inferer):
    """Stage III training: encodes each window once and decodes all its depths.

    Args:
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Any, depth: torch.Tensor, gap: torch.Tensor
    ) -> torch.Tensor:
        """Windows (B, 1, H, W, 4), depth (B, D), gap (B,) -> slices (B, D, H, W)."""
        with autocast(inputs, self.amp):
            features = network.encode(inputs)
            slices = network.decode(features, depth.flatten(), gap.repeat_interleave(depth.shape[1]))
        return slices.float().view(*depth.shape, *slices.shape[-2:])
