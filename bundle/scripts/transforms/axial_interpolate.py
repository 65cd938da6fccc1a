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
from typing import cast

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
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


def _nearest_weight(distance: float) -> float:
    return float(-0.5 <= distance < 0.5)


_KERNELS = {"nearest": _nearest_weight, "linear": _linear_weight, "cubic": _cubic_weight}

# What the trace of a volume calls them: MONAI's words, for only those does its Invertd replace by "nearest".
_TRACED = {"nearest": "nearest", "linear": "linear", "cubic": "bicubic"}
_MODE_OF = {traced: mode for mode, traced in _TRACED.items()}


@lru_cache(maxsize=64)
def interpolation_matrix(
    slices: int, factor: float, mode: str, device: torch.device | None = None, size: int | None = None
) -> torch.Tensor:
    """Weights (K, output size) that carry K slices to the lattice of ``factor``; edge slices are repeated outwards.

    Args:
        mode: "nearest", "linear" or "cubic" (Keys 1981 with a = -0.5).
        size: number of output slices; default: those that the K slices cover.
    """
    kernel = _KERNELS[mode]
    size = lattice.output_size(slices, factor) if size is None else size
    weights = torch.zeros(slices, size, dtype=torch.float64)
    for j in range(size):
        place = lattice.position(j, factor)
        for offset, index in enumerate(lattice.window(place.interval, slices)):
            weights[index, j] += kernel(place.relative_depth + 1 - offset)
    return weights.float().to(device)


def axial_interpolate(
    volume: torch.Tensor, factor: float, mode: str = "cubic", size: int | None = None
) -> torch.Tensor:
    """Interpolate the last axis, (..., K) -> (..., floor((K - 1) * factor) + 1).

    Unlike ``torch.nn.functional.interpolate(align_corners=False)`` the first slice stays where it is.

    Args:
        volume: of floats; integers become float32.
        factor: slices of the output for one of the input; below 1 there are fewer, without a blur before.
        mode: "nearest", "linear" or "cubic".
        size: number of slices of the output, in place of floor((K - 1) * factor) + 1; those beyond the last slice of
            the input repeat it.
    """
    volume = volume if volume.is_floating_point() else volume.float()
    matrix = interpolation_matrix(volume.shape[-1], float(factor), mode, volume.device, size)
    return volume @ matrix.to(volume.dtype)


class AxialResampling(InvertibleTransform):
    """What makes a volume (C, X, Y, Z) finer or coarser along Z, and the way back to the grid before.

    The inverse interpolates, so it brings back the grid, not what was lost of the volume.
    """

    def track_factor(
        self, result: torch.Tensor, volume: torch.Tensor, factor: float, mode: str = "cubic"
    ) -> torch.Tensor:
        """Give a result its affine and, for the inverse, what was done.

        Args:
            result: of ``volume``, on the lattice of ``factor``.
            volume: that came in.
            factor: slices of ``result`` for one of ``volume``.
            mode: of the inverse, see :func:`axial_interpolate`.

        Returns:
            ``result``, unchanged unless it is a MetaTensor.
        """
        if not isinstance(result, MetaTensor):
            return result
        result.affine = torch.as_tensor(lattice.refined_affine(result.affine.numpy(), factor))
        done = {"factor": factor, "mode": _TRACED[mode]}
        return self.push_transform(result, orig_size=tuple(volume.shape[1:]), extra_info=done)

    def inverse(self, data: torch.Tensor) -> MetaTensor:
        """(C, X, Y, Z) on the grid that this transform gave -> (C, X, Y, K) on the grid that it was given."""
        done = self.pop_transform(data)
        factor = 1.0 / float(done[TraceKeys.EXTRA_INFO]["factor"])
        mode = _MODE_OF[done[TraceKeys.EXTRA_INFO]["mode"]]
        result = cast(MetaTensor, axial_interpolate(data, factor, mode, int(done[TraceKeys.ORIG_SIZE][-1])))
        result.affine = torch.as_tensor(lattice.refined_affine(result.affine.numpy(), factor))
        return result


class AxialInterpolate(AxialResampling):
    """Interpolate a volume (C, X, Y, K) along Z by ``factor`` and refine its affine.

    Args:
        factor: real number above 1.
        mode: "nearest", "linear" or "cubic", of the inverse as well.
    """

    def __init__(self, factor: float, mode: str = "cubic") -> None:
        self.factor = lattice.check_factor(factor)
        self.mode = mode

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        result = axial_interpolate(volume, self.factor, self.mode)
        return self.track_factor(result, volume, self.factor, self.mode)


class AxialInterpolated(MapTransform, InvertibleTransform):
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

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Bring the volumes back to their grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.interpolate.inverse(result[key])
        return result
