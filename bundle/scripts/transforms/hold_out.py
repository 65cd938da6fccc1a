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

"""Splits one volume into a training and a validation part."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from monai.config import KeysCollection
from monai.transforms import Crop, Cropd
from scripts.transforms.channels import check_axes
from scripts.volumes.kept_volume import PatchSource

Volume = TypeVar("Volume", bound=torch.Tensor | PatchSource)
_AXES = {"x": 0, "y": 1, "z": 2}


class HoldOut(Crop):
    """Crop a volume to the validation end of an axis, or to all but that end. The inverse pads it with zeros again.

    Args:
        part: "train" or "validation".
        axis: "x", "y" or "z".
        fraction: share of the axis that belongs to validation, in [0, 1].
        minimum: voxels along the axis that the validation part has at least, but at most half of them.

    Raises:
        ValueError: for another part.
    """

    def __init__(self, part: str, axis: str, fraction: float = 0.1, minimum: int = 1) -> None:
        super().__init__()
        if part not in ("train", "validation"):
            raise ValueError(f"part is {part}: give train or validation")
        self.part = part
        self.dim = _AXES[axis]
        self.fraction = fraction
        self.minimum = minimum

    def __call__(self, img: Volume, lazy: bool | None = None) -> Volume:  # type: ignore[override]
        """(C, X, Y, Z) -> the part of it, whose affine has the part's origin; of what reads patches a view.

        Raises:
            InputError: if there are other axes.
        """
        if isinstance(img, torch.Tensor):
            check_axes(img, type(self).__name__)
        size = img.shape[-3 + self.dim]
        held_out = min(max(round(size * self.fraction), self.minimum), size // 2)
        slices = [slice(None)] * 3
        slices[self.dim] = slice(0, size - held_out) if self.part == "train" else slice(size - held_out, size)
        part: Any = super().__call__(img, tuple(slices), lazy) if isinstance(img, torch.Tensor) else img.part(slices)
        return part


class HoldOutd(Cropd):
    """Dictionary form of :class:`HoldOut`.

    Args:
        keys: of the volumes.
        part, axis, fraction, minimum: see there.
        allow_missing_keys: whether a volume may be missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        part: str,
        axis: str,
        fraction: float = 0.1,
        minimum: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, HoldOut(part, axis, fraction, minimum), allow_missing_keys)
