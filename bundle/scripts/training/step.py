# SPDX-License-Identifier: Apache-2.0
"""The recorded training step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from scripts.training.prepare_batch import _tensor


class TrainingStep:
    """A step of MONAI's ``SupervisedTrainer`` (its ``iteration_update``) which on CUDA is recorded once and then replayed.

    A step is a thousand small operations, and launching them one by one takes longer than computing them. After a few ordinary
    steps one is recorded as a CUDA graph, from the batch on the device to the optimizer's update; what it reads and writes stays in place. So
    batches must keep their shapes, and nothing in the step may wait for the GPU or depend on values. The optimizer must be
    ``capturable``, with its learning rate in a tensor, which a schedule changes in place.

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
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: dict[str, torch.Tensor] = {}
        self.loss = torch.zeros(())

    def __call__(self, engine: Any, batchdata: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Make a step with a batch; ``engine`` has the network, the optimizer, the loss and so on."""
        device = torch.device(engine.state.device)
        batch = {key: _tensor(value, device, engine.non_blocking) for key, value in batchdata.items()}
        if self.done == 0:
            engine.network.train()
        if device.type != "cuda":
            self.loss = self._step(engine, batch)
        elif self.done < self.ordinary:
            self._beside(device, lambda: self._step(engine, batch))
        else:
            if self.graph is None:
                self._record(engine, batch)
            for key, value in self.batch.items():
                value.copy_(batch[key])
            assert self.graph is not None
            self.graph.replay()
        self.done += 1
        return {"loss": self.loss}

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

    def _beside(self, device: torch.device, step: Callable[[], torch.Tensor]) -> None:
        """Work on a stream of its own, as before a recording one must."""
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self.loss = step()
        torch.cuda.current_stream(device).wait_stream(stream)

    def _record(self, engine: Any, batch: Mapping[str, torch.Tensor]) -> None:
        self.batch = {key: value.clone() for key, value in batch.items()}
        self.graph = torch.cuda.CUDAGraph()
        engine.optimizer.zero_grad()  # so that the gradients come to lie in the graph's memory
        with torch.cuda.graph(self.graph):
            self.loss = self._step(engine, self.batch)
