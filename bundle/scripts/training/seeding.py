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

"""Random numbers that depend on the epoch alone."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd

_EPOCH_STRIDE = 1000


class SeedEachEpoch:
    """Seeds PyTorch and the random transforms from the epoch number, so that a resumed run repeats the draws.

    Args:
        seed: of the run.
        dataset: whose random transforms are seeded.
        vary: False gives every epoch the same draws, as validation needs.
    """

    def __init__(self, seed: int, dataset: Any, vary: bool = True) -> None:
        self.seed = seed
        self.dataset = dataset
        self.vary = vary

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer or evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + (_EPOCH_STRIDE * engine.state.epoch if self.vary else 0)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
