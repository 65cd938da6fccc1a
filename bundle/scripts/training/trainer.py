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

"""The trainer of stages I and III."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, from_engine
from monai.inferers import Inferer
from scripts.training.checkpoint import CheckpointHandler
from scripts.training.divergence import StopOnDivergence
from scripts.training.ema import EMA
from scripts.training.output_folder import OutputFolder
from scripts.training.progress_bar import TrainingProgressBar
from scripts.training.seeding import SeedEachEpoch
from scripts.training.step import TrainingStep
from scripts.training.volume_loader import VolumeLoader
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

_FINAL_LEARNING_RATE = 1e-6
_LOSS_INTERVAL_ON_GPU = 20  # steps between readings of the loss, each of which waits for the GPU


class VolumeTrainer(SupervisedTrainer):
    """MONAI's ``SupervisedTrainer`` for one volume: what the trainings of stages I and III have in common.

    The learning rate falls along a cosine. The weights are averaged; the loss goes to TensorBoard and to a progress
    bar. A checkpoint is saved after each epoch, and the run resumes from it; a training that diverges ends. The output
    of a step is that of :class:`~scripts.training.step.TrainingStep`.

    Args:
        device: that computes. On a GPU steps are recorded, and the loss is read after every 20th only.
        max_epochs: of the run.
        epoch_length: steps per epoch.
        dataset: of one item, the samples of a batch.
        network: on the device.
        ema: average of the network's weights.
        optimizer: of the network.
        loss_function: of a prediction and its target.
        inferer: applies the network.
        prepare_batch: turns a batch into input and target, see ``monai.engines.PrepareBatch``.
        output: where checkpoint and curves go.
        seed: of all draws.
        description: shown before the progress bar.
        max_grad_norm: see :class:`~scripts.training.step.TrainingStep`.
        train_handlers: act after an epoch has been found finite and before its checkpoint is saved, as validation does:
            an epoch is finished when it is validated.
        options: further arguments of ``SupervisedTrainer``, such as ``key_train_metric``.
    """

    def __init__(
        self,
        *,
        device: str | torch.device,
        max_epochs: int,
        epoch_length: int,
        dataset: CacheDataset,
        network: nn.Module,
        ema: EMA,
        optimizer: torch.optim.Optimizer,
        loss_function: Callable,
        inferer: Inferer,
        prepare_batch: Callable,
        output: OutputFolder,
        seed: int,
        description: str,
        max_grad_norm: float = math.inf,
        train_handlers: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        interval = _LOSS_INTERVAL_ON_GPU if torch.device(device).type == "cuda" else 1
        schedule: Any = CosineAnnealingLR(optimizer, max_epochs * epoch_length, _FINAL_LEARNING_RATE)
        state = {"network": network, "ema": ema.network, "optimizer": optimizer, "lr_scheduler": schedule}
        self.output = output
        loss_of_batch = from_engine(["loss"], first=True)
        handlers: list[Any] = [
            SeedEachEpoch(seed, dataset),
            LrScheduleHandler(schedule, epoch_level=False, print_lr=False),
            StopOnDivergence(state, output.checkpoint, interval),
            ema,
            TensorBoardStatsHandler(
                output.curves, iteration_log=interval, tag_name="loss", output_transform=loss_of_batch
            ),
            TrainingProgressBar(description, interval),
            *train_handlers,
            CheckpointHandler(output.checkpoint, state, output.resume_must_match, device),
        ]
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=VolumeLoader(dataset, epoch_length),
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            inferer=inferer,
            prepare_batch=prepare_batch,
            iteration_update=TrainingStep(max_grad_norm),
            train_handlers=handlers,
            decollate=False,
            **options,
        )
