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

"""Stage I training data: sharp XY patches and their degraded, then interpolated copies."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from scripts import lattice
from scripts.errors import InputError
from scripts.transforms.axial_decimate import axial_decimate
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.transforms.channels import only_channel
from scripts.transforms.patches import Patch, cut_patches, place_patch
from scripts.volumes.kept_volume import PatchSource


class RandSlicePatches(Randomizable):
    """Random XY patches, flipped and turned at random, and the same decimated and interpolated along their last axis.

    Args:
        patch_size: (H, W) of a patch in voxels; smaller where the volume is. W shrinks to a multiple of the factor plus
            one.
        factor: how many times Z is coarser than XY. A sharp image can only be decimated by an integer, so a real factor
            is replaced by one of its two neighboring integers, drawn such that their mean is the factor.
        prior_factor: k of stage II, the whole factor by default. The prior restores images that were upsampled k times;
            with k < factor they stay coarser than XY by factor / k, and so do the patches that the prior learns from.
        num_samples: patches per call.
        degradation: see :func:`~scripts.transforms.axial_decimate.axial_decimate`.
        with_linear: whether items also have "linear", the linear interpolation, to compare the prior with.

    Raises:
        InputError: for a prior_factor of 1.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        factor: float,
        prior_factor: float | None = None,
        num_samples: int = 1,
        degradation: str = "sampling",
        with_linear: bool = False,
    ) -> None:
        self.patch_size = tuple(patch_size)
        prior_factor = factor if prior_factor is None else prior_factor
        if prior_factor == 1:
            raise InputError(
                "--prior_factor 1: nothing is restored then, so there is no prior to learn; train AENet directly"
            )
        self.step, self.factor = int(lattice.axial_step(factor, prior_factor)), prior_factor
        self.num_samples = num_samples
        self.degradation = degradation
        self.modes = {"mu": "cubic", "linear": "linear"} if with_linear else {"mu": "cubic"}

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSlicePatches:
        """Set what is drawn from now on, as MONAI's transforms do; returns the transform itself."""
        super().set_random_state(seed, state)
        return self

    def draw(self, shape: Sequence[int]) -> tuple[Patch, int]:
        """Draw a patch, turned and flipped, and an integer factor for a volume of ``shape`` (X, Y, Z)."""
        x, y, z = shape
        turn, *flips = (bool(self.R.randint(2)) for _ in range(3))
        dims = (1, 0, 2) if turn else (0, 1, 2)
        size = self._size(x, y)
        corner = [self.R.randint(shape[dim] - side + 1) for dim, side in zip(dims, size)]
        low = math.floor(self.factor)
        factor = low + int(self.R.random_sample() < self.factor - low)
        patch = place_patch([self.R.randint(z)], dims, corner, size, flips)
        return patch._replace(across=self.step * patch.across), factor

    def _size(self, x: int, y: int) -> tuple[int, int]:
        """Voxels that a patch spans; the same for both orientations, so that patches of one batch stack."""
        side = min(x, y)
        return min(self.patch_size[0], side), min(self.patch_size[1] * self.step, side)

    def __call__(self, volume: torch.Tensor | PatchSource) -> list[dict[str, torch.Tensor]]:
        """Draw patches.

        Args:
            volume: (1, X, Y, Z) in [0, 1], or what reads patches of one.

        Returns:
            Items "image" (sharp) and "mu" (decimated, then cubic interpolated), both (1, H, W').

        Raises:
            InputError: if there are other axes or several channels, or the volume is too small.
        """
        if isinstance(volume, torch.Tensor):
            volume = only_channel(volume, type(self).__name__)
        draws = [self.draw(volume.shape) for _ in range(self.num_samples)]
        height, span = self._size(*volume.shape[:2])
        images = cut_patches(volume, [patch for patch, _ in draws], (height, -(-span // self.step)))
        keep = self._common_width(images.shape[-1])
        upsampled = {name: torch.empty_like(images[..., :keep]) for name in self.modes}
        factors = np.array([factor for _, factor in draws])
        for factor in np.unique(factors):
            chosen = torch.from_numpy(np.flatnonzero(factors == factor)).to(volume.device, non_blocking=True)
            lowres = axial_decimate(images[chosen], int(factor), self.degradation)
            for name, mode in self.modes.items():
                upsampled[name][chosen] = axial_interpolate(lowres, int(factor), mode)[..., :keep]
        batch = {"image": images[..., :keep].contiguous(), **upsampled}
        return [{name: values[i] for name, values in batch.items()} for i in range(self.num_samples)]

    def _common_width(self, width: int) -> int:
        factors = {math.floor(self.factor), math.ceil(self.factor)}
        common = min((width - 1) // factor * factor + 1 for factor in factors)
        if common <= max(factors):
            raise InputError(
                f"XY is only {width} voxels across, too few for slices {max(factors)} apart: use a wider volume"
            )
        return common


class RandSlicePatchesd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSlicePatches`: volumes in, a list of items "image" and "mu" of all of them out.

    It has no inverse: turned and flipped patches of several slices are no part of the volume's grid, and the items have
    no affine.

    Args:
        keys: of the volumes, each of which gives ``num_samples`` items, those of the first key first.
        patch_size, factor, prior_factor, num_samples, degradation, with_linear: see there.
        allow_missing_keys: whether to pass over keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        factor: float,
        prior_factor: float | None = None,
        num_samples: int = 1,
        degradation: str = "sampling",
        with_linear: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.patches = RandSlicePatches(patch_size, factor, prior_factor, num_samples, degradation, with_linear)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandSlicePatchesd:
        """Seed the draw."""
        super().set_random_state(seed, state)
        self.patches.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [item for key in self.key_iterator(dict(data)) for item in self.patches(data[key])]
