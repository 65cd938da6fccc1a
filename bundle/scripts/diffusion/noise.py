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
