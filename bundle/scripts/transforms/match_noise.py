# SPDX-License-Identifier: Apache-2.0
"""Gives the new slices of a reconstruction the noise of the kept ones, so that a network can learn from it as from a recorded volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from scripts import lattice
from scripts.transforms.channels import only_channel

_GAIN = 20  # of white noise by the Laplacian: the sum of its squared coefficients, 4 * 4 + 4 * 1


class MatchNoise(Transform):
    """Add white noise to the new slices of a reconstruction until they are as rough as the slices that the microscope recorded.

    A reconstruction's new slices are smooth and its kept ones noisy. A network that learns from its XZ and YZ planes would meet a noisy row
    among smooth ones there, but planes that are noisy all over in use. The noise is for what a network is given, not for what it is to predict.
    Training on one's own results with noise added is the Noisy Student of Xie et al. (2020, arXiv 1911.04252).

    Roughness is the variance of a plane's Laplacian, which white noise of variance v raises by 20 v. Each new slice gets the v that it lacks to
    the mean of the kept ones: restored slices are smoothest next to these.

    Args:
        factor: of the reconstruction; tells which slices are kept.
        seed: of the noise.
    """

    def __init__(self, factor: float, seed: int = 0) -> None:
        self.factor = lattice.check_factor(factor)
        self.seed = seed

    def __call__(self, volume: torch.Tensor) -> torch.Tensor:
        """(1, X, Y, Z) in any scale -> the same with noise, on the same device. Kept slices are as they were.

        Raises:
            InputError: if there are other axes or several channels.
        """
        recorded = only_channel(volume, type(self).__name__)
        slices = volume.shape[-1]
        kept = lattice.kept_among(slices, self.factor)
        planes = torch.Tensor.as_subclass(volume, torch.Tensor).clone()
        rough = torch.stack([_roughness(recorded[..., j]) for j in range(slices)])
        deviations = ((rough[kept].mean() - rough) / _GAIN).clamp(min=0).sqrt()
        generator = torch.Generator(planes.device).manual_seed(self.seed)
        for j in sorted(set(range(slices)) - set(kept)):
            planes[..., j] += deviations[j] * torch.randn(planes.shape[:-1], generator=generator, device=planes.device)
        return MetaTensor(planes).copy_meta_from(volume) if isinstance(volume, MetaTensor) else planes


def _roughness(plane: torch.Tensor) -> torch.Tensor:
    """Variance of the Laplacian of an XY slice, away from its borders."""
    sides = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return (4 * plane[1:-1, 1:-1] - sides).var()


class MatchNoised(MapTransform):
    """Dictionary form of :class:`MatchNoise`, which keeps the volume without the noise too.

    Args:
        target_key: that one's.
    """

    def __init__(self, keys: KeysCollection, factor: float, seed: int = 0, target_key: str = "target") -> None:
        super().__init__(keys)
        self.match_noise = MatchNoise(factor, seed)
        self.target_key = target_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.target_key] = result[key]
            result[key] = self.match_noise(result[key])
        return result
