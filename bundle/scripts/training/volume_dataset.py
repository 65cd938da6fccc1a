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

"""The volume that a training learns from, read once and kept on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import EnsureTyped
from scripts.transforms.load_volume import LoadVolumed
from scripts.transforms.scale_intensity import ScalePercentilesd
from scripts.volumes.read_options import ReadOptions


def loading(reading: ReadOptions, percentiles: Sequence[float], device: str | torch.device) -> list[Callable]:
    """
    Return the transforms that a training's volume begins with: read "image", scale it to [0, 1], move it to the device.

    Args:
        reading: how it is read.
        percentiles: of the intensities that become 0 and 1.
        device: where batches are cut, too.
    """
    lower, upper = percentiles
    return [
        LoadVolumed("image", reading),
        ScalePercentilesd("image", lower, upper),
        EnsureTyped("image", device=torch.device(device)),
    ]


class VolumeDataset(CacheDataset):
    """MONAI's ``CacheDataset`` of few large items: they are read when they are asked for, and kept without a copy.

    So a training can be built, and its options be refused, before anything is read.

    Args:
        data: items, such as {"image": path}.
        transform: all transforms; those up to the first random one are applied once. None of the others may change what
            it is given.
    """

    def __init__(self, data: Sequence[Any], transform: Callable) -> None:
        super().__init__(data, transform, progress=False, copy_cache=False, runtime_cache="threads")

    def read(self) -> None:
        """Read all items now, to find what is wrong with them before a training begins."""
        self._cache = self._fill_cache()
