# SPDX-License-Identifier: Apache-2.0
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
