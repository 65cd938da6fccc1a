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

"""A volume in an array of several axes that is read by boxes, as in HDF5 and zarr."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from scripts.volumes.axes import Selection, order_of
from scripts.volumes.formats.base import Stack
from scripts.volumes.formats.voxel_attributes import NOT_KNOWN, VoxelSize


class Array(Protocol):
    """The part of an array's interface that is used: shape, type, and reading of boxes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def dtype(self) -> np.dtype:
        """Of its voxels, in any byte order."""

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        """The voxels of a box."""


def array_stack(
    array: Array,
    names: str,
    selection: Selection,
    path: Path,
    size: VoxelSize = NOT_KNOWN,
    chunk: tuple[int, ...] | None = None,
    channels: Sequence[str] = (),
) -> Stack:
    """
    Return the selected volume of an array.

    Args:
        array: of any number of axes.
        names: one letter for each of them: Z, Y, X, T, C, or another letter for an axis that a volume does not have;
            "I" for axes without a name.
        selection: which volume to read.
        path: for the errors.
        size: of its voxels. One that is not positive is left to :func:`scripts.volumes.header.header_of`, which refuses
            it unless another one is given.
        chunk: sizes of the chunks of the array, one for each axis; None if it has none.
        channels: their names, for the errors.

    Raises:
        InputError: the selection is not a single volume of one channel.
    """
    order = order_of(names, array.shape, selection, path, channels)

    def read_box(x: slice, y: slice, z: slice) -> np.ndarray:
        return np.asarray(array[order.box(len(array.shape), x, y, z)]).transpose(order.to_xyz)

    affine = None
    if size.voxel_size is not None:
        # a negative size would pass for a mirrored axis
        sides = [float(size.voxel_size[axis]) if size.voxel_size[axis] > 0 else math.nan for axis in "XYZ"]
        affine = np.diag([*sides, 1.0])
        affine[:3, 3] = [float((size.origin or {}).get(axis, 0.0)) for axis in "XYZ"]
    along = None if chunk is None else {letter: chunk[place] for letter, place in zip(order.letters, order.places)}
    return Stack(
        order.shape,
        np.dtype(array.dtype),
        affine,
        size.unit,
        lambda index: read_box(slice(None), slice(None), slice(index, index + 1))[:, :, 0],
        decoded=along is not None,
        doubt=size.doubt,
        read_box=read_box,
        chunk=None if along is None else (along["X"], along["Y"], along["Z"]),
        source=size.source,
    )
