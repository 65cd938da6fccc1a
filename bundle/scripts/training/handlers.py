# SPDX-License-Identifier: Apache-2.0
"""The handlers that both trainings, of stages I and III, have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler, from_engine

from scripts.training.divergence import StopOnDivergence
from scripts.training.ema import EMA
from scripts.training.progress_bar import TrainingProgressBar
from scripts.training.seeding import SeedEachEpoch
from scripts.training.tensorboard_planes import TensorBoardPlanes

_LOSS_INTERVAL_ON_GPU = 20  # steps between readings of the loss, each of which waits for the GPU


class TrainingHandlers:
    """Seeds, learning rate schedule, average of the weights, check for divergence, loss curve and progress bar of a training.

    To be attached before the handlers that validate and save, which are to see a state that is finite.

    Args:
        seed: of all draws.
        dataset: whose random transforms are seeded, each epoch.
        lr_scheduler: steps after each training step.
        ema: average of the weights.
        save_dict, checkpoint: as of :class:`~scripts.training.checkpoint.CheckpointHandler`; what may not diverge.
        summary_writer: of TensorBoard.
        device: that computes. On a GPU the loss is read after every 20th step, elsewhere after each.
        description: shown before the progress bar.
    """

    def __init__(
        self,
        *,
        seed: int,
        dataset: Any,
        lr_scheduler: Any,
        ema: EMA,
        save_dict: Mapping[str, Any],
        checkpoint: str | Path,
        summary_writer: Any,
        device: str | torch.device,
        description: str,
    ) -> None:
        interval = _LOSS_INTERVAL_ON_GPU if torch.device(device).type == "cuda" else 1
        self.handlers: list[Any] = [
            SeedEachEpoch(seed, dataset),
            LrScheduleHandler(lr_scheduler, epoch_level=False, print_lr=False),
            StopOnDivergence(save_dict, checkpoint, interval),
            ema,
            TensorBoardStatsHandler(
                summary_writer,
                iteration_log=interval,
                tag_name="loss",
                output_transform=from_engine(["loss"], first=True),
            ),
            TrainingProgressBar(description, interval),
        ]

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        for handler in self.handlers:
            handler.attach(engine)


class ValidationHandlers:
    """Seeds, log, curves and images of a validation during training.

    Args:
        seed: of all draws, which are the same in each validation.
        dataset: whose random transforms are seeded.
        summary_writer: of TensorBoard.
        planes: as of :class:`~scripts.training.tensorboard_planes.TensorBoardPlanes`.
    """

    def __init__(
        self,
        *,
        seed: int,
        dataset: Any,
        summary_writer: Any,
        planes: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Any]],
    ) -> None:
        self.handlers: list[Any] = [
            SeedEachEpoch(seed, dataset, vary=False),
            StatsHandler(name="validation", iteration_log=False),
            TensorBoardStatsHandler(summary_writer, iteration_log=False),
            TensorBoardPlanes(summary_writer, planes),
        ]

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        for handler in self.handlers:
            handler.attach(engine)
