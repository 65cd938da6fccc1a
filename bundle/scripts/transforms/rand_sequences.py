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

"""Stage III training data: four planes at a random distance, and target planes between the middle two."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from scripts.errors import InputError
from scripts.lattice import INPUT_SLICES
from scripts.transforms.channels import one_for_each, only_channel
from scripts.transforms.patches import Patch, cut_patches, place_patch
from scripts.volumes.kept_volume import PatchSource

_DIMS = {"x": 0, "y": 1, "z": 2}


class _Draw(NamedTuple):
    patch: Patch
    relative_depths: list[float]
    factor: int


class RandSequences(Randomizable):
    """Random sequences of planes along the sharp axes of a (pseudo-HR) volume.

    Sequences along Y of XZ planes and along X of YZ planes have real, finely sampled targets (paper section 2.3).

    Args:
        patch_size: (H, W) of a patch of a plane, in voxels; smaller where the volume is.
        train_factors: range, ends included, of the distance between the input planes in voxels.
        num_targets: target planes per sequence; each window is encoded once and decoded for all of them.
        num_samples: sequences per call.
        axes: axes to draw sequences along; ("z",) on a volume that is isotropic already (supervised training).
        edge_probability: how often an outer plane is replaced by its neighbor, as at the ends of a volume.
        input_slice_probability: how often a target lies at an input plane, at relative depth 0. The target is then the
            plane one voxel to either side: where the noise differs from plane to plane, the network learns to remove it
            (Noise2Noise, Lehtinen et al. 2018); the input plane itself would teach it to copy.

    Raises:
        InputError: for factors below 2 or in the wrong order, or axes that do not exist.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        train_factors: Sequence[int] = (2, 12),
        num_targets: int = 1,
        num_samples: int = 1,
        axes: Sequence[str] = ("x", "y"),
        edge_probability: float = 0.05,
        input_slice_probability: float = 0.0,
    ) -> None:
        if not isinstance(axes, (str, list, tuple)) or not axes or any(axis not in _DIMS for axis in axes):
            raise InputError(f"--sequence_axes {axes}: give one or more of x, y and z in brackets, such as \"['z']\"")
        self.patch_size = tuple(patch_size)
        self.train_factors = tuple(int(factor) for factor in train_factors)
        if self.train_factors[0] < 2:
            raise InputError(
                f"--train_factors {list(train_factors)}: the smallest factor is 2, with one plane in between"
            )
        if self.train_factors[0] > self.train_factors[1]:
            raise InputError(f"--train_factors {list(train_factors)}: the smaller number comes first")
        self.num_targets = num_targets
        self.num_samples = num_samples
        self.dims = [_DIMS[axis] for axis in axes]
        self.edge_probability = edge_probability
        self.input_slice_probability = input_slice_probability

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandSequences:
        """Set what is drawn from now on, as MONAI's transforms do; returns the transform itself."""
        super().set_random_state(seed, state)
        return self

    def draw(self, shape: Sequence[int]) -> _Draw:
        """Draw one sequence from a volume of ``shape`` (X, Y, Z)."""
        dim = self.dims[self.R.randint(len(self.dims))]
        smallest, largest = self.train_factors
        largest = min(largest, (shape[dim] - 1) // (INPUT_SLICES - 1))
        if largest < smallest:
            raise InputError(
                f"the volume is {shape[dim]} voxels across, too few for four planes {smallest} apart: "
                "lower --train_factors, and --val_factor if it is larger, or use a larger volume"
            )
        factor = self.R.randint(smallest, largest + 1)
        start = self.R.randint(shape[dim] - (INPUT_SLICES - 1) * factor)
        offsets = self.R.choice(factor - 1, self.num_targets, replace=factor - 1 < self.num_targets) + 1
        sides = [d for d in range(3) if d != dim]
        size = self._size(shape)
        corner = [self.R.randint(shape[d] - side + 1) for d, side in zip(sides, size)]
        edge = [0, INPUT_SLICES - 1][self.R.randint(2)] if self.R.random_sample() < self.edge_probability else None
        reverse, turn, *flips = (bool(self.R.randint(2)) for _ in range(4))
        at_input = self.R.random_sample(self.num_targets) < self.input_slice_probability
        beside = 2 * self.R.randint(2, size=self.num_targets) - 1

        inputs = [start + i * factor for i in range(INPUT_SLICES)]
        if reverse:
            inputs, offsets = inputs[::-1], factor - offsets
        direction = -1 if reverse else 1
        targets = inputs[1] + np.where(at_input, beside, direction * offsets)
        relative_depths = np.where(at_input, 0, offsets / factor)
        if edge is not None:
            inputs[edge] = inputs[1 if edge == 0 else INPUT_SLICES - 2]
        if turn and size[0] == size[1]:  # a turned patch fits the batch only if it is square
            sides, corner = sides[::-1], corner[::-1]
        patch = place_patch([*inputs, *targets], (sides[0], sides[1], dim), corner, size, flips)
        return _Draw(patch, relative_depths.tolist(), factor)

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Patch sides that every axis of the volume can give, so that patches of one batch stack."""
        first, second = self.patch_size
        for dim in self.dims:
            sides = [shape[d] for d in range(3) if d != dim]
            first, second = min(first, sides[0]), min(second, sides[1])
        return first, second

    def __call__(
        self, volume: torch.Tensor | PatchSource, targets: torch.Tensor | PatchSource | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Draw sequences.

        Args:
            volume: (1, X, Y, Z), or what reads patches of one.
            targets: volume of the same tissue on the same grid that the target planes are cut from; default:
                ``volume``.

        Returns:
            Items "image" (1, H, W, 4), "label" (num_targets, H, W), "relative_depth" (num_targets,) in [0, 1) and
            "factor" ().

        Raises:
            InputError: if there are other axes or several channels, or the volume is too small.
        """
        both = volume, volume if targets is None else targets
        name = type(self).__name__
        volumes = [only_channel(each, name) if isinstance(each, torch.Tensor) else each for each in both]
        shape, device = volumes[0].shape, volumes[0].device
        draws = [self.draw(shape) for _ in range(self.num_samples)]
        planes = [
            cut_patches(of, [draw.patch._replace(corner=draw.patch.corner[part]) for draw in draws], self._size(shape))
            for of, part in zip(volumes, (slice(INPUT_SLICES), slice(INPUT_SLICES, None)))
        ]
        numbers = torch.tensor([[float(draw.factor), *draw.relative_depths] for draw in draws])
        numbers = numbers.to(device, non_blocking=True)
        images, labels = planes[0][:, None].movedim(2, -1).contiguous(), planes[1]
        return [
            {"image": image, "label": label, "relative_depth": number[1:], "factor": number[0]}
            for image, label, number in zip(images, labels, numbers)
        ]


class RandSequencesd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSequences`: volumes in, a list of the items of all of them out.

    It has no inverse: planes of several places and directions, turned and flipped, are no part of the volume's grid,
    and the items have no affine.

    Args:
        keys: of the volumes, each of which gives ``num_samples`` items, those of the first key first.
        target_key: of the volume that the target planes are cut from, one for each key; where it is missing from the
            data, they are cut from the same volume.
        patch_size, train_factors, num_targets, num_samples, axes, edge_probability, input_slice_probability: see there.
        allow_missing_keys: whether to pass over keys that are not there.

    Raises:
        ValueError: unless there is one ``target_key`` for each key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        train_factors: Sequence[int] = (2, 12),
        num_targets: int = 1,
        num_samples: int = 1,
        axes: Sequence[str] = ("x", "y"),
        edge_probability: float = 0.05,
        input_slice_probability: float = 0.0,
        target_key: KeysCollection = "target",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.target_keys = one_for_each(target_key, keys, "target_key")
        self.sequences = RandSequences(
            patch_size, train_factors, num_targets, num_samples, axes, edge_probability, input_slice_probability
        )

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandSequencesd:
        """Seed the draw."""
        super().set_random_state(seed, state)
        self.sequences.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        pairs = self.key_iterator(dict(data), self.target_keys)
        return [item for key, target_key in pairs for item in self.sequences(data[key], data.get(target_key))]
