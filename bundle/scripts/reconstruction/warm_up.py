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

"""A GPU gets ready while the first block is read, as a handler of MONAI's evaluator."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from ignite.engine import Engine, Events
from scripts.reconstruction.block_dataset import BlockDataset


class WarmUp:
    """Has the inferer record its work in a thread while the loader reads the first block.

    Args:
        dataset: of the blocks.
        network: of stage III.
        device: that computes.
    """

    def __init__(self, dataset: BlockDataset, network: torch.nn.Module, device: str | torch.device) -> None:
        self.dataset = dataset
        self.network = network
        self.device = torch.device(device)
        self._done: Future | None = None

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        first = Events.GET_BATCH_STARTED(event_filter=lambda engine, _: engine.state.iteration == 0)
        engine.add_event_handler(first, self._begin)
        engine.add_event_handler(Events.ITERATION_STARTED(once=1), self._wait)

    def _begin(self) -> None:
        pool = ThreadPoolExecutor(1, "warm-up")
        self._done = pool.submit(self._warm_up)
        pool.shutdown(wait=False)

    def _wait(self) -> None:
        if self._done is not None:
            self._done.result()

    def _warm_up(self) -> None:
        for volume in self.dataset.volumes:
            for block in volume.blocks[:1]:
                self.dataset.inferer.warm_up(block, volume.factor, self.network, self.device)
                return
