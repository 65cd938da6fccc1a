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

"""Restoration of slices with the prior of stage I."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from scripts import lattice
from scripts.diffusion.samplers import SAMPLERS, all_timesteps, skipped_timesteps
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError
from scripts.networks.precision import autocast

MARGIN = 4
"""Voxels beyond an image, at the least, that are restored with it and cut off."""


class RestorationInferer(Inferer):
    """Stage II for images: samples the prior from interpolated images.

    Images are continued beyond their edges, and what the prior makes of that is cut off. A convolution pads with zeros,
    which are no part of an image: only a long training learns what to make of them, and the sampler amplifies its
    errors there. What a network appends by itself to reach a size that it can halve repeats the noise of the last row,
    which it has not learned either: here the continuation has noise of its own, and is as long as the network needs.

    Args:
        sde: the one the prior was trained with.
        sampler: "posterior" or "reverse_sde" (the paper's).
        num_steps: network evaluations; "reverse_sde" skips no timestep and needs all of them (100).
        stochastic: add noise along the way. Off, "posterior" is deterministic but for the start.
        seed: of the noise.
        amp: compute in bfloat16 where torch's autocast finds it safe.
    """

    def __init__(
        self,
        sde: MeanRevertingSDE,
        sampler: str = "posterior",
        num_steps: int = 8,
        stochastic: bool = False,
        seed: int = 0,
        amp: bool = False,
    ) -> None:
        super().__init__()
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler {sampler}: there is none of that name; choose {' or '.join(SAMPLERS)}")
        if sampler == "reverse_sde" and num_steps != sde.timesteps:
            raise InputError(
                f"--num_steps {num_steps}: reverse_sde cannot skip timesteps, give {sde.timesteps} or leave it out"
            )
        self.sde = sde
        self.sampler = SAMPLERS[sampler]
        self.timesteps = all_timesteps(sde) if sampler == "reverse_sde" else skipped_timesteps(sde, num_steps)
        self.stochastic = stochastic
        self.seed = seed
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable, draw: int = 0) -> torch.Tensor:  # type: ignore[override]
        """``inputs``: mu (B, 1, H, W) in [0, 1] -> restored images of that shape. ``draw`` numbers the noise."""
        generator = torch.Generator("cpu").manual_seed(self.seed * 1_000_003 + draw)

        def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            with autocast(x, self.amp):
                return network(x, t)

        height, width = inputs.shape[-2:]
        top, bottom, left, right = margins(height, width, getattr(network, "multiple", 1))
        with torch.no_grad():
            mu = F.pad(inputs, (left, right, top, bottom), mode="replicate")
            restored = self.sampler(self.sde, predict, mu, self.timesteps, generator, self.stochastic)
        return restored[..., top : top + height, left : left + width]


def margins(height: int, width: int, multiple: int = 1) -> tuple[int, int, int, int]:
    """Voxels that an image is continued by at its top, bottom, left and right, so that both sides become multiples.

    The columns are where Z is. Recorded slices lie ``prior_factor`` columns apart, beginning with the first of an image
    that the network was trained on: it knows them by their place among the squares of pixels that it halves the image
    by. So the continuation on the left is a whole number of those squares long.

    Args:
        height, width: of the image.
        multiple: side of the squares, ``ConditionalNAFNet.multiple``.
    """
    rows = lattice.padded_size(height + 2 * MARGIN, multiple) - height
    left = lattice.padded_size(MARGIN, multiple)
    right = lattice.padded_size(left + width + MARGIN, multiple) - left - width
    return rows // 2, rows - rows // 2, left, right
