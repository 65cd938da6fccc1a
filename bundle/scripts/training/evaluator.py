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

"""The validation during the trainings of stages I and III."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, StatsHandler, TensorBoardStatsHandler, from_engine
from monai.inferers import Inferer
from monai.metrics import SSIMMetric
from scripts.training.output_folder import OutputFolder
from scripts.training.seeding import SeedEachEpoch
from scripts.training.volume_loader import VolumeLoader
from torch import nn


class VolumeEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for one volume: what the validations of stages I and III have in common.

    Each validation draws the same samples. SSIM is added to the key metric, and the metrics go to the log and to
    TensorBoard.

    Args:
        device: that computes.
        dataset: of one item, the samples of a batch.
        network: to validate, on the device.
        inferer: applies the network.
        prepare_batch: turns a batch into input and target, see ``monai.engines.PrepareBatch``.
        output: where the curves go.
        seed: of all draws.
        val_handlers: act before the metrics are shown, and may add some.
        options: further arguments of ``SupervisedEvaluator``, such as ``key_val_metric``.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        dataset: CacheDataset,
        network: nn.Module,
        inferer: Inferer,
        prepare_batch: Callable,
        output: OutputFolder,
        seed: int,
        val_handlers: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        ssim = IgniteMetricHandler(
            metric_fn=SSIMMetric(spatial_dims=2), output_transform=from_engine(["pred", "label"])
        )
        handlers: list[Any] = [
            SeedEachEpoch(seed, dataset, vary=False),
            *val_handlers,
            StatsHandler(name="validation", iteration_log=False),
            TensorBoardStatsHandler(output.curves, iteration_log=False),
        ]
        super().__init__(
            device=device,
            val_data_loader=VolumeLoader(dataset),
            network=network,
            inferer=inferer,
            prepare_batch=prepare_batch,
            additional_metrics={"ssim": ssim, **options.pop("additional_metrics", {})},
            val_handlers=handlers,
            **options,
        )
