# SPDX-License-Identifier: Apache-2.0
"""Splits one volume into a training and a validation part."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from scripts.transforms.channels import check_axes

_AXES = {"x": 1, "y": 2, "z": 3}


class HoldOut(Transform):
    """Keep the validation end of an axis, or all but that.

    Args:
        part: "train" or "validation".
        axis: "x", "y" or "z".
        fraction: share of the axis that belongs to validation.
        minimum: the validation part has at least this many voxels along the axis (at most half of it).
    """

    def __init__(self, part: str, axis: str, fraction: float = 0.1, minimum: int = 1) -> None:
        if part not in ("train", "validation"):
            raise ValueError(f"part is {part}: give train or validation")
        self.part = part
        self.dim = _AXES[axis]
        self.fraction = fraction
        self.minimum = minimum

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """(C, X, Y, Z) -> the part of it.

        Raises:
            InputError: if there are other axes.
        """
        check_axes(volume, type(self).__name__)
        size = volume.shape[self.dim]
        held_out = min(max(round(size * self.fraction), self.minimum), size // 2)
        start, length = (0, size - held_out) if self.part == "train" else (size - held_out, held_out)
        return volume.narrow(self.dim, start, length)


class HoldOutd(MapTransform):
    """Dictionary form of :class:`HoldOut`."""

    def __init__(
        self,
        keys: KeysCollection,
        part: str,
        axis: str,
        fraction: float = 0.1,
        minimum: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.hold_out = HoldOut(part, axis, fraction, minimum)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.hold_out(result[key])
        return result
