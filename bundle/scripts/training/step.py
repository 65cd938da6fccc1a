# SPDX-License-Identifier: Apache-2.0
"""The recorded training step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from scripts.networks.recorded import RecordedStep
from scripts.training.prepare_batch import _tensor


class TrainingStep:
    """A step of MONAI's ``SupervisedTrainer`` (its ``iteration_update``) which on CUDA is recorded once and then replayed.

    Recorded is all from the batch on the device to the optimizer's update, under the rules of
    :class:`~scripts.networks.recorded.RecordedStep`. The optimizer must be ``capturable``, with its learning rate in a tensor, which a
    schedule changes in place.

    Output: {"loss": scalar on the device}. Reading it waits for the GPU.

    Args:
        max_grad_norm: norm to which larger gradients are scaled down. One batch in some hundred has a gradient ten times that of the
            others; in long runs such a step can throw a network off for good.
        ordinary: steps before the recording, in which the libraries choose and load what they need.
    """

    def __init__(self, max_grad_norm: float = math.inf, ordinary: int = 3) -> None:
        self.max_grad_norm = max_grad_norm
        self.ordinary = ordinary
        self.done = 0
        self.recorded: RecordedStep | None = None

    def __call__(self, engine: Any, batchdata: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Make a step with a batch; ``engine`` has the network, the optimizer, the loss and so on."""
        device = torch.device(engine.state.device)
        batch = {key: _tensor(value, device, engine.non_blocking) for key, value in batchdata.items()}
        names = sorted(batch)
        if self.recorded is None:
            engine.network.train()

            def step(*values: torch.Tensor) -> torch.Tensor:
                return self._step(engine, dict(zip(names, values)))

            self.recorded = RecordedStep(step, device, warmup=self.ordinary)
        if self.done == self.ordinary:
            engine.optimizer.zero_grad()  # so that the gradients come to lie in the memory of the recording
        self.done += 1
        return {"loss": self.recorded(*(batch[name] for name in names))}

    def _step(self, engine: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        inputs, targets, *rest = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        args, kwargs = rest or ((), {})
        engine.optimizer.zero_grad()
        loss = engine.loss_function(engine.inferer(inputs, engine.network, *args, **kwargs), targets).mean()
        loss.backward()
        if math.isfinite(self.max_grad_norm):
            nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_grad_norm)
        engine.optimizer.step()
        return loss.detach()
