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

"""The volume that a training learns from, read once for all that cut patches of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import CacheDataset
from monai.transforms import Compose, Transform
from scripts.volumes.kept_volume import KeptVolume


class Shared(Transform):
    """Transforms that are applied to an item once, for all datasets that begin with them: the parts for training and for
    validation are of one volume.

    Args:
        transforms: none of them random.
    """

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = Compose(transforms)
        self._made: dict[str, Any] = {}

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the item that they make of ``data``, whose entries are compared by how they are written."""
        name = repr(sorted(data.items()))
        if name not in self._made:
            self._made[name] = self.transforms(data)
        return dict(self._made[name])


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

    @property
    def is_off_device(self) -> bool:
        """Whether what was read is kept in main memory or on disk for a training."""
        return any(isinstance(each, KeptVolume) for item in self._cache if item is not None for each in item.values())
