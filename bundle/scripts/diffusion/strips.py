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

"""A volume on disk as strips along Y, which stage II works on one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from scripts.diffusion.room import rows_of_strips
from scripts.errors import InputError
from scripts.volumes.background import to_device
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import VolumeSource
from scripts.volumes.volume_block import WHOLE, VolumeBlock

STRIP = "strip"
"""Entry of the meta data of an image that is a strip of a volume: the first of its rows along Y, and the one after the
last.
"""


class StripDataset(Dataset):
    """
    The strips of a volume: all of X and Z, and so many rows along Y that memory does not grow with the volume.

    Args:
        data: one mapping, with the path of the volume as "image".
        transform: of an item; it begins with :class:`scripts.transforms.load_volume.LoadVolumed`.
        prior_factor: k, how many times finer Z becomes.
        reading: how the volume is read.

    Attributes:
        source: the volume, open for reading.
        prior_factor: the same.

    Raises:
        InputError: there are several volumes, or it cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        prior_factor: float,
        reading: ReadOptions = AS_STORED,
    ) -> None:
        super().__init__(list(data), transform)
        if len(self.data) != 1 or not isinstance(self.data[0]["image"], (str, os.PathLike)):
            raise InputError("stage II takes the file of one volume at a time; run it for each on its own")
        self.source = VolumeSource(self.data[0]["image"], reading)
        self.prior_factor = prior_factor
        self._rows = rows_of_strips(self.shape, prior_factor)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z) of the volume."""
        return self.source.header.shape

    def __len__(self) -> int:
        return -(-self.shape[1] // self._rows)

    def _transform(self, index: int) -> dict[str, Any]:
        x, y, z = self.shape
        begin = index * self._rows
        return self._item(slice(0, x), slice(begin, min(begin + self._rows, y)), slice(0, z))

    def read(self, x: slice, y: slice, z: slice) -> torch.Tensor:
        """
        Read any part of the volume, through the transforms.

        Args:
            x, y, z: ranges of voxels, with their ends.

        Returns:
            (X, Y, Z) without meta data.

        Raises:
            InputError: it cannot be read, or the transforms change its shape.
        """
        return torch.Tensor.as_subclass(self._item(x, y, z)["image"], torch.Tensor)[0]

    def _item(self, x: slice, y: slice, z: slice) -> dict[str, Any]:
        item = self.data[0]
        meta = {"filename_or_obj": str(item["image"]), STRIP: torch.tensor([y.start, y.stop])}
        result: dict[str, Any] = self.transform({**item, "image": VolumeBlock(self.source, x, y, z, meta)})
        image, sizes = result["image"], tuple(side.stop - side.start for side in (x, y, z))
        if tuple(image.shape) != (1, *sizes):
            raise InputError(
                f"--preprocessing: made {tuple(image.shape)} of a part of (1, *{sizes}) voxels; leave the shape as it is"
            )
        if isinstance(image, MetaTensor):
            image.meta.pop(WHOLE, None)  # a batch cannot hold it
        return result


def strip_of(image: torch.Tensor) -> slice | None:
    """The rows along Y of the volume that an image is a strip of; None for a whole volume."""
    rows = image.meta.get(STRIP) if isinstance(image, MetaTensor) else None
    return None if rows is None else slice(*torch.as_tensor(rows).flatten().tolist())


class PatchReader:
    """
    A volume of which no more than patches are read, a :class:`scripts.volumes.kept_volume.PatchSource`.

    Args:
        read: returns the voxels (X, Y, Z) of ranges along x, y and z.
        shape: number of voxels (x, y, z).
        device: where patches go.
    """

    def __init__(
        self, read: Callable[[slice, slice, slice], torch.Tensor], shape: Sequence[int], device: torch.device
    ) -> None:
        self._read, self.device = read, device
        self._ranges = [range(size) for size in shape]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (x, y, z)."""
        x, y, z = map(len, self._ranges)
        return x, y, z

    def part(self, parts: Sequence[slice]) -> PatchReader:
        """A part (x, y, z) of the volume."""
        result = PatchReader(self._read, self.shape, self.device)
        result._ranges = [along[part] for along, part in zip(self._ranges, parts)]
        return result

    def cut(self, corner: np.ndarray, down: np.ndarray, across: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """Read patches (B, N, H, W), see :meth:`scripts.volumes.kept_volume.KeptVolume.cut`."""
        rows, columns = np.arange(size[0])[:, None, None], np.arange(size[1])[:, None]
        patches = [
            self._patch(first[:, None, None] + rows * step + columns * stride)
            for first, step, stride in zip(corner, down, across)
        ]
        return to_device(torch.stack(patches), self.device)

    def _patch(self, places: np.ndarray) -> torch.Tensor:
        """The voxels at (N, H, W, 3) places."""
        places = places + [along.start for along in self._ranges]
        low, high = places.min((0, 1, 2)), places.max((0, 1, 2)) + 1
        voxels = self._read(*(slice(int(begin), int(end)) for begin, end in zip(low, high)))
        return voxels[tuple(torch.from_numpy(places - low).unbind(-1))]
