# SPDX-License-Identifier: Apache-2.0
"""Stage III training data: four planes a gap apart, and the planes between the middle two."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from scripts.errors import InputError
from scripts.lattice import WINDOW

_DIMS = {"x": 1, "y": 2, "z": 3}


class _Draw(NamedTuple):
    dim: int
    gap: int
    start: int
    offsets: list[int]
    corner: tuple[int, int]
    edge: int | None
    reverse: bool
    turn: bool
    flips: list[int]


class RandSequences(Randomizable):
    """Random sequences of planes along the sharp axes of a (pseudo-HR) volume.

    Sequences along Y of XZ planes and along X of YZ planes have real, finely sampled targets (paper section 2.3).

    Args:
        patch_size: sides of a plane patch; smaller where the volume is.
        gap_range: smallest and largest distance between the input planes in voxels, both included.
        depths: target planes per sequence; each window is encoded once and decoded for all of them.
        num_samples: sequences per call.
        axes: axes to draw sequences along; ("z",) on a volume that is isotropic already.
        edge_probability: how often an outer plane is replaced by its neighbour, as at the ends of a volume.
    """

    def __init__(
        self,
        patch_size: Sequence[int],
        gap_range: Sequence[int] = (2, 12),
        depths: int = 1,
        num_samples: int = 1,
        axes: Sequence[str] = ("x", "y"),
        edge_probability: float = 0.05,
    ) -> None:
        self.patch_size = tuple(patch_size)
        self.gap_range = tuple(int(gap) for gap in gap_range)
        if self.gap_range[0] < 2:
            raise InputError(f"--gap_range {list(gap_range)}: the smallest gap is 2, with one plane in between")
        self.depths = depths
        self.num_samples = num_samples
        self.dims = [_DIMS[axis] for axis in axes]
        self.edge_probability = edge_probability

    def draw(self, shape: Sequence[int]) -> _Draw:
        """Draw one sequence from a volume of ``shape`` (1, X, Y, Z)."""
        dim = self.dims[self.R.randint(len(self.dims))]
        smallest, largest = self.gap_range
        largest = min(largest, (shape[dim] - 1) // (WINDOW - 1))
        if largest < smallest:
            raise InputError(
                f"the volume is {shape[dim]} voxels across, too few for four planes {smallest} apart: "
                "lower gap_range or use a larger volume"
            )
        gap = self.R.randint(smallest, largest + 1)
        start = self.R.randint(shape[dim] - (WINDOW - 1) * gap)
        offsets = self.R.choice(gap - 1, self.depths, replace=gap - 1 < self.depths) + 1
        sides = [shape[d] for d in (1, 2, 3) if d != dim]
        height, width = self._size(shape)
        corner = (self.R.randint(sides[0] - height + 1), self.R.randint(sides[1] - width + 1))
        edge = [0, WINDOW - 1][self.R.randint(2)] if self.R.random_sample() < self.edge_probability else None
        reverse, turn, flip_h, flip_w = (bool(self.R.randint(2)) for _ in range(4))
        flips = [d for d, flip in ((0, flip_h), (1, flip_w)) if flip]
        return _Draw(dim, gap, start, offsets.tolist(), corner, edge, reverse, turn, flips)

    def _size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Patch sides that every axis of the volume can give, so that patches of one batch stack."""
        first, second = self.patch_size
        for dim in self.dims:
            sides = [shape[d] for d in (1, 2, 3) if d != dim]
            first, second = min(first, sides[0]), min(second, sides[1])
        return first, second

    def __call__(self, volume: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """(1, X, Y, Z) -> items "image" (1, H, W, 4), "label" (D, H, W), "depth" (D,) and "gap" ()."""
        volume = torch.Tensor.as_subclass(volume, torch.Tensor)
        height, width = self._size(volume.shape)
        items = []
        for _ in range(self.num_samples):
            draw = self.draw(volume.shape)
            planes = volume[0].movedim(draw.dim - 1, -1)
            top, left = draw.corner
            planes = planes[top : top + height, left : left + width]

            inputs = [draw.start + i * draw.gap for i in range(WINDOW)]
            targets = [inputs[1] + offset for offset in draw.offsets]
            depths = [offset / draw.gap for offset in draw.offsets]
            if draw.edge is not None:
                inputs[draw.edge] = inputs[1 if draw.edge == 0 else WINDOW - 2]
            if draw.reverse:
                inputs = inputs[::-1]
                depths = [1 - depth for depth in depths]

            drawn = planes[..., inputs + targets]
            # A turn is only the same problem for square patches.
            drawn = drawn.transpose(0, 1) if draw.turn and height == width else drawn
            drawn = drawn.flip(draw.flips)
            items.append(
                {
                    "image": drawn[None, ..., :WINDOW].contiguous(),
                    "label": drawn[..., WINDOW:].movedim(-1, 0).contiguous(),
                    "depth": torch.tensor(depths, device=volume.device),
                    "gap": torch.tensor(float(draw.gap), device=volume.device),
                }
            )
        return items


class RandSequencesd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandSequences`: one volume in, a list of items "image", "label", "depth", "gap" out."""

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        gap_range: Sequence[int] = (2, 12),
        depths: int = 1,
        num_samples: int = 1,
        axes: Sequence[str] = ("x", "y"),
        edge_probability: float = 0.05,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.sequences = RandSequences(patch_size, gap_range, depths, num_samples, axes, edge_probability)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandSequencesd:
        """Seed the draw."""
        super().set_random_state(seed, state)
        self.sequences.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return self.sequences(data[self.first_key(dict(data))])
