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

"""Adds noise to the new slices of a reconstruction, so that a network can be trained on it as on a recorded volume."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scripts import lattice
from scripts.transforms.channels import one_for_each, only_channel
from scripts.volumes.kept_volume import KeptVolume

Volume = TypeVar("Volume", torch.Tensor, KeptVolume)
_GAIN = 20  # of white noise by the Laplacian: the sum of its squared coefficients, 4 * 4 + 4 * 1


class MatchNoise(Transform):
    """Add white noise to the new slices of a reconstruction until they are as rough as the recorded ones.

    In a reconstruction new slices are smooth and recorded ones noisy. In its XZ and YZ planes a network would see noisy
    rows among smooth ones during training, but in use it sees XY planes that are noisy everywhere. The noise is for the
    input planes, not for the targets. Training on a network's own results with noise added is the Noisy Student of Xie
    et al. (2020, arXiv 1911.04252).

    Roughness is the variance of a plane's Laplacian, which white noise of variance v raises by 20 v. Each new slice
    gets the v that raises its roughness to the mean of the recorded slices, so slices next to these, which are the
    smoothest, get the most.

    Args:
        factor: of the reconstruction; tells which slices are recorded.
        seed: of the noise.
    """

    def __init__(self, factor: float, seed: int = 0) -> None:
        self.factor = lattice.check_factor(factor)
        self.seed = seed

    def __call__(self, volume: Volume) -> Volume:
        """(1, X, Y, Z) in any scale -> the same with noise, on the same device. Recorded slices are unchanged. A kept
        volume gives another one, in single precision, in the same place.

        Raises:
            InputError: if there are other axes or several channels, or the disk has no room for a kept volume.
        """
        if isinstance(volume, KeptVolume):
            noisy = volume.like("float32")
            made = self._planes(lambda: (plane.to(volume.device) for plane in volume.planes()), volume.shape[2])
            for _ in noisy.keep(plane.cpu().numpy() for plane in made):
                pass
            return noisy
        recorded = only_channel(volume, type(self).__name__)
        planes = torch.Tensor.as_subclass(volume, torch.Tensor).clone()
        for j, plane in enumerate(self._planes(lambda: recorded.unbind(-1), volume.shape[-1])):
            planes[0, ..., j] = plane
        return MetaTensor(planes).copy_meta_from(volume) if isinstance(volume, MetaTensor) else planes

    def _planes(self, recorded: Callable[[], Iterable[torch.Tensor]], slices: int) -> Iterator[torch.Tensor]:
        """The slices (X, Y) with noise, in their order; ``recorded`` gives those without."""
        kept = set(lattice.kept_among(slices, self.factor))
        rough = torch.stack([_roughness(plane) for plane in recorded()])
        deviations = ((rough[sorted(kept)].mean() - rough) / _GAIN).clamp(min=0).sqrt()
        generator = torch.Generator(rough.device).manual_seed(self.seed)
        for j, plane in enumerate(recorded()):
            if j not in kept:
                noise = torch.randn(plane.shape, generator=generator, device=plane.device)
                plane = plane + deviations[j] * noise
            yield plane


def _roughness(plane: torch.Tensor) -> torch.Tensor:
    """Variance of the Laplacian of an XY slice, away from its borders."""
    sides = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return (4 * plane[1:-1, 1:-1] - sides).var()


class MatchNoised(MapTransform):
    """Dictionary form of :class:`MatchNoise`, which also keeps the volume without the noise.

    Args:
        keys: of the volumes.
        factor, seed: see there.
        target_key: of the volume without the noise, one for each key.
        allow_missing_keys: whether to pass over keys that are not there.

    Raises:
        ValueError: unless there is one ``target_key`` for each key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        factor: float,
        seed: int = 0,
        target_key: KeysCollection = "target",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.target_keys = one_for_each(target_key, keys, "target_key")
        self.match_noise = MatchNoise(factor, seed)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result: dict[Hashable, Any] = dict(data)
        for key, target_key in self.key_iterator(result, self.target_keys):
            result[target_key] = result[key]
            result[key] = self.match_noise(result[key])
        return result
