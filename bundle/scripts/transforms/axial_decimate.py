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

"""Makes a volume coarse in Z, as a microscope would."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from scripts import lattice
from scripts.errors import InputError
from scripts.transforms.axial_interpolate import AxialResampling

DEGRADATIONS = ("sampling", "average", "gaussian")
"""How a coarse slice comes about: one fine slice, the mean of ``factor`` fine slices, or a Gaussian axial PSF."""


def axial_decimate(volume: torch.Tensor, factor: float, degradation: str = "sampling") -> torch.Tensor:
    """Keep every ``factor``-th slice of the last axis, (..., Z) -> (..., K).

    Args:
        factor: real number above 1; the nearest slice is taken where it is not whole.
        degradation: "sampling" (the paper's: no blur, the noise of a slice stays as it is), "average" (a box of
            ``factor`` slices) or "gaussian" (a PSF whose full width at half maximum is ``factor`` slices). Blurs are
            centerd on the kept slice.
    """
    if degradation != "sampling":
        volume = _blur(volume, _axial_psf(factor, degradation))
    if float(factor).is_integer():  # as a view, where a list of indices would have to reach the GPU first
        return volume[..., :: int(factor)]
    return volume[..., lattice.decimated_indices(volume.shape[-1], factor)]


def _axial_psf(factor: float, degradation: str) -> torch.Tensor:
    reach = math.ceil(factor / 2) if degradation == "average" else math.ceil(1.5 * factor)
    distance = torch.arange(-reach, reach + 1, dtype=torch.float32)
    if degradation == "average":
        weights = (factor / 2 + 0.5 - distance.abs()).clamp(0, 1)
    elif degradation == "gaussian":
        weights = torch.exp(-4 * math.log(2) * (distance / factor) ** 2)
    else:
        raise InputError(f"--degradation {degradation}: there is none of that name; choose {', '.join(DEGRADATIONS)}")
    return weights / weights.sum()


def _blur(volume: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    reach = len(weights) // 2
    rows = F.pad(volume.reshape(-1, 1, volume.shape[-1]), (reach, reach), mode="replicate")
    return F.conv1d(rows, weights.to(volume)[None, None]).reshape(volume.shape)


class AxialDecimate(AxialResampling):
    """Decimate a volume (C, X, Y, Z) along Z and coarsen its affine; see :func:`axial_decimate`.

    The inverse is cubic interpolation to as many slices as there were.
    """

    def __init__(self, factor: float, degradation: str = "sampling") -> None:
        self.factor = lattice.check_factor(factor)
        self.degradation = degradation

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        return self.track_factor(axial_decimate(volume, self.factor, self.degradation), volume, 1.0 / self.factor)


class AxialDecimated(MapTransform, InvertibleTransform):
    """Dictionary form of :class:`AxialDecimate`."""

    def __init__(
        self, keys: KeysCollection, factor: float, degradation: str = "sampling", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decimate = AxialDecimate(factor, degradation)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.decimate(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Bring the volumes back to their grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.decimate.inverse(result[key])
        return result
