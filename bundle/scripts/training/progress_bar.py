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

"""The progress bar of a training."""

from __future__ import annotations

from ignite.engine import Engine, Events
from scripts.training.step import loss_of
from tqdm import tqdm


class TrainingProgressBar:
    """Progress bar over all epochs, with the loss and the remaining time.

    Ignite's ProgressBar begins anew with each epoch and reads the loss after each step, which waits for the GPU.

    Args:
        description: shown before the bar.
        interval: steps between readings of the loss.
    """

    def __init__(self, description: str, interval: int = 1) -> None:
        self.description = description
        self.interval = interval
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def update(self, engine: Engine) -> None:
        """Count one step."""
        state = engine.state
        if self.bar is None:  # not earlier: a resumed run knows its first step only after it has started
            total = (state.max_epochs or 0) * (state.epoch_length or 0)
            self.bar = tqdm(total=total, initial=state.iteration - 1, desc=self.description, unit="step")
        if state.iteration % self.interval == 0:
            self.bar.set_postfix(loss=f"{loss_of(engine):.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Leave the finished bar standing."""
        if self.bar is not None:
            self.bar.close()
