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

from monai.data import CacheDataset, DataLoader
from torch.utils.data import RandomSampler


class VolumeLoader(DataLoader):
    """MONAI's ``DataLoader`` for a dataset of one volume, whose random transforms cut a whole batch at once.

    No worker processes: the volume lives on the device, and the samples are cut there.

    Args:
        dataset: of one item, a list of samples.
        epoch_length: batches per epoch; one by default.
    """

    def __init__(self, dataset: CacheDataset, epoch_length: int | None = None) -> None:
        sampler = None
        if epoch_length is not None:
            sampler = RandomSampler(dataset, replacement=True, num_samples=epoch_length)
        super().__init__(dataset, num_workers=0, batch_size=1, sampler=sampler)
