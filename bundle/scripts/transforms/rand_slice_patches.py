# SPDX-License-Identifier: Apache-2.0
"""Stage I training data: sharp XY patches beside their degraded copies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from scripts import lattice
from scripts.errors import InputError
from scripts.transforms.axial_decimate import axial_decimate
from scripts.transforms.axial_interpolate import axial_interpolate


class RandSlicePatches(Randomizable):
    """Random XY patches, randomly flipped and turned, and what they become when their last axis is made coarse.

    Args:
        patch_size: (H, W) of a patch; smaller where the volume is. W shrinks to a whole number of gaps plus one.
        factor: how many times Z is coarser than XY. A real factor is met by its two neighbouring integers, in such shares that
            the mean is right: a sharp image can only be decimated by an integer.
        upsampling: k of stage II. The prior restores images that were upsampled k times; with k < factor they stay coarser than XY
            by factor / k, and so do the patches the prior learns from.
        num_samples: patches per call.
        degradation: see ``axial_decimate``.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        factor: float,
        upsampling: float | None = None,
        num_samples: int = 1,
        degradation: str = "sampling",
    ) -> None:
        self.patch_size = tuple(patch_size)
        upsampling = factor if upsampling is None else upsampling
        if upsampling == 1:
            raise InputError(
                "--upsampling 1: nothing is restored then, so there is no prior to learn; train AENet directly"
            )
        self.step, self.factor = int(lattice.axial_step(factor, upsampling)), upsampling
        self.num_samples = num_samples
        self.degradation = degradation

    def draw(self, shape: Sequence[int]) -> tuple[int, int, int, bool, bool, bool, int]:
        """Draw slice, corner, transposition, two flips and an integer factor for a volume of ``shape`` (X, Y, Z)."""
        x, y, z = shape
        turn, flip_h, flip_w = (bool(self.R.randint(2)) for _ in range(3))
        height, width = self._size(x, y) if not turn else self._size(y, x)
        rows, columns = (x, y) if not turn else (y, x)
        top = self.R.randint(rows - height + 1)
        left = self.R.randint(columns - width + 1)
        low = math.floor(self.factor)
        factor = low + int(self.R.random_sample() < self.factor - low)
        return self.R.randint(z), top, left, turn, flip_h, flip_w, factor

    def _size(self, rows: int, columns: int) -> tuple[int, int]:
        # The same for both turns, so that patches of one batch stack.
        side = min(rows, columns)
        return min(self.patch_size[0], side), min(self.patch_size[1] * self.step, side)

    def __call__(self, volume: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """(1, X, Y, Z) -> items "image" (sharp) and "mu" (decimated, then cubic upsampled), both (1, H, W')."""
        # A plain tensor: MetaTensor indexing would cost more than the patches themselves.
        volume = torch.Tensor.as_subclass(volume, torch.Tensor)
        items = []
        for _ in range(self.num_samples):
            z, top, left, turn, flip_h, flip_w, factor = self.draw(volume.shape[1:])
            plane = volume[:, :, :, z]
            plane = plane.transpose(1, 2) if turn else plane
            height, width = self._size(*plane.shape[1:])
            patch = plane[:, top : top + height, left : left + width]
            flips = [dim for dim, flip in ((1, flip_h), (2, flip_w)) if flip]
            image = patch.flip(flips)[..., :: self.step]
            mu = axial_interpolate(axial_decimate(image, factor, self.degradation), factor)
            keep = self._common_width(image.shape[-1])
            items.append({"image": image[..., :keep].contiguous(), "mu": mu[..., :keep].contiguous()})
        return items

    def _common_width(self, width: int) -> int:
        factors = {math.floor(self.factor), math.ceil(self.factor)}
        common = min((width - 1) // factor * factor + 1 for factor in factors)
        if common <= max(factors):
            raise InputError(
                f"XY is only {width} voxels across, too few for one gap of {max(factors)}: use a wider volume"
            )
        return common


class RandSlicePatchesd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSlicePatches`: one volume in, a list of items "image" and "mu" out."""

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        factor: float,
        upsampling: float | None = None,
        num_samples: int = 1,
        degradation: str = "sampling",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.patches = RandSlicePatches(patch_size, factor, upsampling, num_samples, degradation)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandSlicePatchesd:
        """Seed the draw."""
        super().set_random_state(seed, state)
        self.patches.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return self.patches(data[self.first_key(dict(data))])
