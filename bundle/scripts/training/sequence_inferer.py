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

"""How stage III applies its network to sequences of planes."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from scripts.networks.precision import autocast


class SequenceInferer(Inferer):
    """Stage III training: encodes each window once and decodes a slice at each of its relative depths.

    Args:
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(  # type: ignore[override]
        self, inputs: torch.Tensor, network: Any, relative_depth: torch.Tensor, factor: torch.Tensor
    ) -> torch.Tensor:
        """Predict the target slices of a batch.

        Args:
            inputs: windows (B, 1, H, W, 4) in [0, 1].
            network: of stage III.
            relative_depth: of the targets, (B, D) in [0, 1).
            factor: distance of the planes of each window in voxels, (B,).

        Returns:
            Slices (B, D, H, W), float32.
        """
        with autocast(inputs, self.amp):
            features = network.encode(inputs)
            factors = factor.repeat_interleave(relative_depth.shape[1])
            slices = network.decode(features, relative_depth.flatten(), factors)
        return slices.float().view(*relative_depth.shape, *slices.shape[-2:])
