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

from collections.abc import Hashable

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


def only_key(keys: KeysCollection, name: str) -> Hashable:
    """The key of a transform that makes several items of one volume.

    Args:
        keys: as of MONAI's ``MapTransform``.
        name: of the transform, for the error.

    Raises:
        ValueError: if there are several keys, of which all but one would be ignored.
    """
    all_keys = ensure_tuple(keys)
    if len(all_keys) != 1:
        raise ValueError(f"{name} takes one key, not {len(all_keys)}")
    return all_keys[0]
