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

"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_LARGEST_MOMENTUM = 0.5
_FORGETTING = 10  # a run of n steps has a momentum of at least 10 / n: e^-10 of the initial weights is left


class EMA:
    """Exponential moving average (EMA) of a network's weights, updated after each step in a few operations.

    Ignite's EMAHandler makes two operations for each of several hundred tensors, which takes longer than a step.

    Args:
        network: whose weights are averaged.
        momentum: share of the new weights in each update, in (0, 1).
        num_steps: length of the run. A short run gets a larger momentum, up to 0.5, because its average would otherwise
            still contain the initial weights at the end; None: the momentum is used as it is.

    Attributes:
        network: a copy with the averaged weights, in evaluation mode.
        momentum: the one that is used.
    """

    def __init__(self, network: nn.Module, momentum: float, num_steps: int | None = None) -> None:
        if num_steps is not None:
            momentum = min(_LARGEST_MOMENTUM, max(momentum, _FORGETTING / num_steps))
        self.momentum = momentum
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._averaged = list(self.network.parameters())
        self._current = list(network.parameters())
        self._update = get_ema_multi_avg_fn(1 - momentum)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def update(self, engine: Engine) -> None:
        """Average the network's present weights into the copy."""
        self._update(self._averaged, self._current, 0)
