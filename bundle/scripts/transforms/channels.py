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

"""Checks of the axes, channels and keys of a transform, which would otherwise use the wrong ones silently."""

from __future__ import annotations

from typing import Any

import torch
from monai.config import KeysCollection
from monai.utils import ensure_tuple
from scripts.errors import InputError


def check_axes(volume: torch.Tensor, name: str) -> None:
    """Raise InputError unless ``volume`` is (C, X, Y, Z) with voxels; ``name``: of the transform."""
    if volume.ndim != 4 or 0 in volume.shape:
        raise InputError(f"{name} takes volumes (C, X, Y, Z) with voxels, not {tuple(volume.shape)}")


def only_channel(volume: torch.Tensor, name: str) -> torch.Tensor:
    """(1, X, Y, Z) -> (X, Y, Z) without meta data.

    Args:
        name: of the transform, for the error.

    Raises:
        InputError: if there are other axes or several channels.
    """
    check_axes(volume, name)
    if volume.shape[0] != 1:
        raise InputError(f"{name} takes one channel, not {volume.shape[0]}: give each on its own")
    return torch.Tensor.as_subclass(volume, torch.Tensor)[0]


def one_for_each(values: Any, keys: KeysCollection, what: str) -> tuple:
    """The values that belong to the keys of a transform, one to each.

    Args:
        values: one or several.
        keys: as of MONAI's ``MapTransform``.
        what: the argument that has the values, for the error.

    Raises:
        ValueError: if there are more or fewer values than keys: one would overwrite or hide another.
    """
    each, names = ensure_tuple(values), ensure_tuple(keys)
    if len(each) != len(names):
        raise ValueError(f"{what} has {len(each)} for the keys {list(names)}: give one for each key")
    return each
