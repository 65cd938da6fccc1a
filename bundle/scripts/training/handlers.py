# SPDX-License-Identifier: Apache-2.0
"""What happens around the steps: averages, seeds, progress, divergence, pictures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from scripts.errors import InputError
from scripts.networks.finite import first_not_finite


class EMA:
    """Exponential moving average of a network's weights, updated after each step in a few operations.

    Ignite's EMAHandler makes two operations for each of several hundred tensors, which takes longer than a step.

    Args:
        network: whose weights are averaged.
        momentum: share of the new weights in each update.

    Attributes:
        network: a copy with the averaged weights, in evaluation mode.
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._pairs = list(self.network.parameters()), list(network.parameters())
        self._update = get_ema_multi_avg_fn(1 - momentum)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def update(self, engine: Engine) -> None:
        """Take in the weights of the network."""
        averages, current = self._pairs
        self._update(averages, current, 0)


class SeedEachEpoch:
    """Seeds torch and the random transforms from the epoch number, so that a resumed run is the run it continues.

    Args:
        seed: of the run.
        dataset: whose random transforms are seeded.
        vary: false gives every epoch the same draws, as validation wants.
    """

    def __init__(self, seed: int, dataset: Any, vary: bool = True) -> None:
        self.seed = seed
        self.dataset = dataset
        self.vary = vary

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer or evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + (1000 * engine.state.epoch if self.vary else 0)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)


class RunProgress:
    """Progress bar over the whole run with the loss and the time left.

    Args:
        description: shown before the bar.
        interval: steps between readings of the loss, each of which waits for the GPU.
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
        if self.bar is None:  # made late: a resumed run knows its place only after it has started
            total = (state.max_epochs or 0) * (state.epoch_length or 0)
            self.bar = tqdm(total=total, initial=state.iteration - 1, desc=self.description, unit="step")
        if state.iteration % self.interval == 0:
            self.bar.set_postfix(loss=f"{_loss_of(engine):.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Leave the finished bar standing."""
        if self.bar is not None:
            self.bar.close()


def _loss_of(engine: Engine) -> float:
    """Loss of the last step, for which a GPU is waited for."""
    output: Any = engine.state.output  # a list where the trainer decollates
    return float((output[0] if isinstance(output, list) else output)["loss"])


class StopDiverged:
    """Ends a training whose loss or state is not finite any more, before anything of it is validated or kept.

    Stands before the handlers that validate and that write the checkpoint, which so stays the last good one.

    Args:
        objects: as of :class:`Resume`.
        checkpoint: file of :class:`Resume`, for the message.
        interval: steps between readings of the loss, each of which waits for the GPU. The state is looked at after each epoch.
    """

    def __init__(self, objects: Mapping[str, Any], checkpoint: str | Path, interval: int = 1) -> None:
        self.objects = dict(objects)
        self.checkpoint = Path(checkpoint)
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_state)

    def check_loss(self, engine: Engine) -> None:
        """Raise InputError where it is time to read the loss and it is NaN or infinite."""
        if engine.state.iteration % self.interval == 0 and not math.isfinite(_loss_of(engine)):
            raise _diverged(engine, self.checkpoint, "loss")

    def check_state(self, engine: Engine) -> None:
        """Raise InputError where a number of the networks, the averages or the optimizer is NaN or infinite."""
        wrong = first_not_finite({name: target.state_dict() for name, target in self.objects.items()})
        if wrong is not None:
            raise _diverged(engine, self.checkpoint, wrong)


def _diverged(engine: Engine, checkpoint: Path, what: str) -> InputError:
    kept = "no epoch was finished before, so there is no checkpoint"
    if checkpoint.is_file():
        kept = f"{checkpoint} is the last good checkpoint, of epoch {engine.state.epoch - 1}, and is kept"
    return InputError(
        f"the training diverged in epoch {engine.state.epoch} of {engine.state.max_epochs} ({what} is NaN or infinite); {kept}; "
        "begin anew with a lower --learning_rate and another --output_dir"
    )


class ValidationPictures:
    """Writes planes of the first item of a validation to TensorBoard, each under its name and all with the same grey levels.

    MONAI's TensorBoardImageHandler names them input_0, input_1 and output, and stretches each to its own range.

    Args:
        summary_writer: of TensorBoard.
        planes: name -> function that takes the item, {"image", "label", "pred"}, and returns a plane (H, W) in [0, 1].
    """

    def __init__(self, summary_writer: Any, planes: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Any]]) -> None:
        self.summary_writer = summary_writer
        self.planes = dict(planes)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for name, plane in self.planes.items():
            picture = torch.as_tensor(plane(output[0])).detach().float().cpu().clamp(0, 1)
            self.summary_writer.add_image(name, picture.T, engine.state.epoch, dataformats="HW")  # its rows go down
