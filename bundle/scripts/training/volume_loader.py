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

"""Batches of random samples from one volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai.data import CacheDataset
from scripts.training.volume_dataset import VolumeDataset
from scripts.volumes.prefetch_loader import PrefetchLoader
from torch.utils.data import RandomSampler


class VolumeLoader(PrefetchLoader):
    """Loader for a dataset of one volume, whose random transforms cut a whole batch at once.

    Where the volume is kept off the device, a thread cuts the next batches while the device is at work; on the device
    they are cut when they are asked for. No worker processes, which would not share the volume.

    Args:
        dataset: of one item, a list of samples.
        epoch_length: batches per epoch; one by default.
    """

    def __init__(self, dataset: CacheDataset, epoch_length: int | None = None) -> None:
        sampler = None
        if epoch_length is not None:
            sampler = RandomSampler(dataset, replacement=True, num_samples=epoch_length)
        super().__init__(dataset, num_workers=0, batch_size=1, sampler=sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        ahead = isinstance(self.dataset, VolumeDataset) and self.dataset.is_off_device
        return super().__iter__() if ahead else super(PrefetchLoader, self).__iter__()
