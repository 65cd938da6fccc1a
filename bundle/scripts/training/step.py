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

"""The recorded training step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from scripts.networks.recorded import RecordedStep
from scripts.training.prepare_batch import plain_tensor
from torch import nn


class TrainingStep:
    """A step of MONAI's ``SupervisedTrainer`` (``iteration_update``), which on CUDA is recorded once and replayed.

    Recorded is all from the batch on the device to the optimizer's update, under the rules of
    :class:`~scripts.networks.recorded.RecordedStep`. The optimizer must be ``capturable``, with its learning rate in a
    tensor, which a schedule changes in place.

    What it returns, and the trainer keeps as ``engine.state.output``, is what MONAI's handlers read: a list with an
    item {"image", "label", "pred", "loss"} for each sample of the batch. They are views of the batch, on the device,
    and are overwritten by the next step; the loss is the batch's, a scalar, and reading it waits for the GPU. The
    trainer needs ``decollate=False``: MONAI's own decollation reads the loss in each step.

    Args:
        max_grad_norm: gradients of a larger norm are scaled down to it. One batch in some hundred has a gradient ten
            times as large as the others, and in a long run such a step can ruin a network for good.
        warmup_steps: steps before the recording, in which the libraries choose and load their kernels.
    """

    def __init__(self, max_grad_norm: float = math.inf, warmup_steps: int = 3) -> None:
        self.max_grad_norm = max_grad_norm
        self.warmup_steps = warmup_steps
        self.done = 0
        self.recorded: RecordedStep[dict[str, Any]] | None = None

    def __call__(self, engine: Any, batchdata: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
        """Make a step with a batch; ``engine`` has the network, the optimizer, the loss and so on."""
        device = torch.device(engine.state.device)
        batch = {key: plain_tensor(value, device, engine.non_blocking) for key, value in batchdata.items()}
        names = sorted(batch)
        if self.recorded is None:
            engine.network.train()

            def step(*values: torch.Tensor) -> dict[str, Any]:
                return self._step(engine, dict(zip(names, values)))

            self.recorded = RecordedStep(step, device, warmup=self.warmup_steps)
        if self.done == self.warmup_steps:
            engine.optimizer.zero_grad()  # so that the gradients are allocated in the memory of the recording
        self.done += 1
        return _items(self.recorded(*(batch[name] for name in names)))

    def _step(self, engine: Any, batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        image, label, *rest = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        args, kwargs = rest or ((), {})
        engine.optimizer.zero_grad()
        pred = engine.inferer(image, engine.network, *args, **kwargs)
        loss = engine.loss_function(pred, label).mean()
        loss.backward()
        if math.isfinite(self.max_grad_norm):
            nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_grad_norm)
        engine.optimizer.step()
        return {"image": image, "label": label, "pred": pred.detach(), "loss": loss.detach()}


def loss_of(engine: Engine) -> float:
    """Loss of the last step of a trainer, for which a GPU is waited for."""
    output: Any = engine.state.output
    return float(output[0]["loss"])


def _items(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The samples of a batch, each with the loss of the batch, without waiting for the GPU."""
    samples = _split({name: value for name, value in output.items() if name != "loss"})
    return [{**sample, "loss": output["loss"]} for sample in samples]


def _split(values: Any) -> Sequence[Any]:
    """One entry a sample, of a tensor (B, ...) or of a mapping of such tensors."""
    if isinstance(values, Mapping):
        return [dict(zip(values, sample)) for sample in zip(*map(_split, values.values()))]
    return values.unbind()
