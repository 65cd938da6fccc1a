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

"""Ends a training that diverges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from scripts.errors import InputError
from scripts.networks.finite import first_not_finite
from scripts.training.step import loss_of


class StopOnDivergence:
    """Ends a training when its loss, its weights or another part of its state become NaN or infinite.

    It is attached before the handlers that validate and that save the checkpoint: what they see is finite, and the
    checkpoint on disk remains the last good one. Ignite's TerminateOnNan reads the output alone, after each step, and
    does not say what to do.

    Args:
        save_dict: as of :class:`~scripts.training.checkpoint.CheckpointHandler`; looked at after each epoch.
        checkpoint: the file, for the message.
        interval: steps between readings of the loss, each of which waits for the GPU.
    """

    def __init__(self, save_dict: Mapping[str, Any], checkpoint: str | Path, interval: int = 1) -> None:
        self.save_dict = dict(save_dict)
        self.checkpoint = Path(checkpoint)
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self.check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_state)

    def check_loss(self, engine: Engine) -> None:
        """Look at the loss.

        Raises:
            InputError: if it is NaN or infinite.
        """
        if not math.isfinite(loss_of(engine)):
            raise self._diverged(engine, "loss")

    def check_state(self, engine: Engine) -> None:
        """Look at all numbers of the networks, the optimizer and so on.

        Raises:
            InputError: if one is NaN or infinite.
        """
        name = first_not_finite({name: target.state_dict() for name, target in self.save_dict.items()})
        if name is not None:
            raise self._diverged(engine, name)

    def _diverged(self, engine: Engine, name: str) -> InputError:
        state = engine.state
        kept = "no epoch was finished before, so there is no checkpoint"
        if self.checkpoint.is_file():
            kept = f"{self.checkpoint} is the last good checkpoint, of epoch {state.epoch - 1}, and is kept"
        return InputError(
            f"the training diverged in epoch {state.epoch} of {state.max_epochs} ({name} is NaN or infinite); {kept}; "
            "begin anew with a lower --learning_rate and another --output_dir"
        )
