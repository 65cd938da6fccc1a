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

"""Interpolation along Z on the lattice: the baseline every result is measured against, and the start of stage II."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scripts import lattice

# Catmull-Rom; on noisy tissue it scores higher than the sharper -0.75 of torch's bicubic, so it is the stricter
# baseline.
_CUBIC_A = -0.5


def _cubic_weight(distance: float) -> float:
    """Keys (1981) convolution kernel."""
    a, x = _CUBIC_A, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _linear_weight(distance: float) -> float:
    return max(0.0, 1.0 - abs(distance))


_KERNELS = {"linear": _linear_weight, "cubic": _cubic_weight}


@lru_cache(maxsize=64)
def interpolation_matrix(slices: int, factor: float, mode: str, device: torch.device | None = None) -> torch.Tensor:
    """Weights (K, output size) that carry K slices to the lattice of ``factor``; edge slices are repeated outwards.

    Args:
        mode: "linear" or "cubic" (Keys 1981 with a = -0.5).
    """
    kernel = _KERNELS[mode]
    places = lattice.positions(slices, factor)
    weights = torch.zeros(slices, len(places), dtype=torch.float64)
    for j, place in enumerate(places):
        for offset, index in enumerate(lattice.window(place.interval, slices)):
            weights[index, j] += kernel(place.depth + 1 - offset)
    return weights.float().to(device)


def axial_interpolate(volume: torch.Tensor, factor: float, mode: str = "cubic") -> torch.Tensor:
    """Interpolate the last axis, (..., K) -> (..., floor((K - 1) * factor) + 1).

    Unlike ``torch.nn.functional.interpolate(align_corners=False)`` the first slice stays where it is.
    """
    matrix = interpolation_matrix(volume.shape[-1], float(factor), mode, volume.device)
    return volume @ matrix.to(volume.dtype)


class AxialInterpolate(Transform):
    """Interpolate a volume (C, X, Y, K) along Z by ``factor`` and refine its affine.

    Args:
        factor: real number above 1.
        mode: "linear" or "cubic".
    """

    def __init__(self, factor: float, mode: str = "cubic") -> None:
        self.factor = lattice.check_factor(factor)
        self.mode = mode

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        result = axial_interpolate(volume, self.factor, self.mode)
        if isinstance(result, MetaTensor):
            result.affine = torch.as_tensor(lattice.refined_affine(result.affine.numpy(), self.factor))
        return result


class AxialInterpolated(MapTransform):
    """Dictionary form of :class:`AxialInterpolate`."""

    def __init__(
        self, keys: KeysCollection, factor: float, mode: str = "cubic", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.interpolate = AxialInterpolate(factor, mode)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.interpolate(result[key])
        return result
