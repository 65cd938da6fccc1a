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

"""A part of a volume that is read when it is asked for."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys
from scripts.errors import InputError
from scripts.lattice import Block
from scripts.volumes.reading import VolumeSource

BLOCK = "block"
"""Entry of the meta data of an image that is a part of a volume: the numbers of its :class:`scripts.lattice.Block`."""

VOLUME = "volume"
"""Entry of the meta data of a block: the number of its volume in the dataset."""

FACTOR = "factor"
"""Entry of the meta data of a reconstruction: its factor."""

COPIED = "input_slices_copied"
"""Entry of the meta data of a reconstruction: whether it has copies of the recorded slices."""

RECORDED = "recorded"
"""Entry of the meta data of a block that has been read: its voxels in the type of the file, where they are floats."""

WHOLE = "whole_volume"
"""Entry of the meta data of a part that has been read: the :class:`VolumeSource` that it is part of, for what depends
on the whole volume.
"""


def recorded_of(key: Hashable) -> str:
    """The item with the voxels of the image ``key`` in the type of the file, where they are floats."""
    return f"{key}_{RECORDED}"


class VolumeBlock(NamedTuple):
    """A part of an open volume.

    Attributes:
        source: the volume.
        x, y, z: which voxels.
        meta: further entries for the meta data, as the file's name.
    """

    source: VolumeSource
    x: slice
    y: slice
    z: slice
    meta: Mapping[str, Any]

    def read(self) -> MetaTensor:
        """
        Read it.

        Returns:
            Volume (1, X, Y, Z), float32, with the values of the file, placed by its ``affine``; ``meta`` as that of
            :func:`scripts.volumes.reading.read_volume`, with :data:`WHOLE`.

        Raises:
            InputError: the file cannot be read.
        """
        header = self.source.header
        voxels = self.source.read_block(self.x, self.y, range(self.z.start, self.z.stop))
        if (
            self.source.is_large and voxels.dtype.kind == "f" and not np.isfinite(voxels).all()
        ):  # others were read before
            place = ", ".join(f"{side.start}:{side.stop}" for side in (self.x, self.y, self.z))
            raise InputError(
                f"{self.source.path}: has voxels that are NaN or infinite in [{place}] (x, y, z); replace them first"
            )
        affine = np.array(header.affine, dtype=np.float64)
        affine[:3, 3] += affine[:3, :3] @ [self.x.start, self.y.start, self.z.start]
        meta = {"unit": header.unit, "dtype": header.dtype, "axis": header.axis, MetaKeys.ORIGINAL_CHANNEL_DIM: 0}
        meta.update({WHOLE: self.source, **self.meta})
        if voxels.dtype.kind == "f":
            wide = np.promote_types(voxels.dtype, np.float32).newbyteorder("=")
            meta[RECORDED] = torch.from_numpy(voxels.astype(wide))[None]
        tensor = torch.from_numpy(voxels.astype(np.float32, order="C"))[None]
        return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)


def block_of(image: torch.Tensor) -> Block | None:
    """The block that an image is the input or the output of, by its meta data; None for a whole volume."""
    numbers = image.meta.get(BLOCK) if isinstance(image, MetaTensor) else None
    return None if numbers is None else Block.of(torch.as_tensor(numbers).flatten().tolist())
