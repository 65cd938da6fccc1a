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

"""A stage III network made ready for use: on CUDA the work on a batch of windows is one launch."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from scripts.networks.optimize import optimize_for_inference
from scripts.networks.precision import autocast
from scripts.networks.recorded import RecordedStep
from torch import nn

_CUDA_WINDOWS = 4  # fewer leave a GPU idle where feature maps are small; more gain under a tenth and take memory


class Predictor:
    """New slices of batches of windows of one size.

    On CUDA the work on a batch is recorded, see :class:`~scripts.networks.recorded.RecordedStep`.

    Args:
        network: of stage III, on the device; it is copied.
        factor: output slices for one input slice.
        device: that computes.
        depth_batch: slices of a window decoded at once.
        amp: compute in bfloat16 where torch's autocast finds it safe.
        recordings: for how many shapes of a tile work is recorded at the same time.

    Attributes:
        windows: number of windows in a batch.
    """

    def __init__(
        self, network: nn.Module, factor: float, device: torch.device, depth_batch: int, amp: bool, recordings: int = 1
    ) -> None:
        self.recordings = recordings
        self.device = device
        self.windows = _CUDA_WINDOWS if device.type == "cuda" else 1
        ready = optimize_for_inference(network, device, amp)
        # no method: a step that refers back to this object would keep its memory until Python looks for cycles
        self._step = RecordedStep(partial(_predict, ready, factor, depth_batch, amp), device, shapes=recordings)

    @torch.no_grad()
    def __call__(self, windows: torch.Tensor, relative_depths: torch.Tensor) -> torch.Tensor:
        """
        Args:
            windows: (B, H, W, 4) in [0, 1], on the device.
            relative_depths: (B, D) in [0, 1), on the device.

        Returns:
            Slices (B, D, H, W), float32. On CUDA they are overwritten by the next call.
        """
        return self._step(windows, relative_depths)

    def forget(self) -> None:
        """Free the memory of recordings, for tiles of another size."""
        self._step.forget()


def _predict(
    network: Any, factor: float, depth_batch: int, amp: bool, windows: torch.Tensor, relative_depths: torch.Tensor
) -> torch.Tensor:
    """Encodes each window once and decodes its slices, ``depth_batch`` at a time."""
    with autocast(windows, amp):
        features = network.encode(windows[:, None])
        parts = []
        for some in relative_depths.split(depth_batch, 1):
            slices = network.decode(features, some.flatten(), torch.full_like(some, factor).flatten())
            parts.append(slices.float().view(*some.shape, *slices.shape[-2:]))
    return torch.cat(parts, 1)


class TTAPredictor:
    """Test-time augmentation in place of a :class:`Predictor`: its mean over the 16 orientations of a window.

    Eight are the turns and flips in XY. Eight more are the same with the slices in reverse order, at relative depth 1 - d, and
    are left out at relative depth 0: the network was trained for relative depths in [0, 1), not for 1.

    Args:
        network, factor, device, depth_batch, amp: of the predictor.

    Attributes:
        windows, device, recordings: as those of the predictor.
        looks: calls of the predictor for one call of this.
    """

    looks = 16

    def __init__(self, network: nn.Module, factor: float, device: torch.device, depth_batch: int, amp: bool) -> None:
        # two: on its side, a tile that is no square has another shape
        self.predictor = Predictor(network, factor, device, depth_batch, amp, recordings=2)
        self.windows, self.device, self.recordings = self.predictor.windows, device, self.predictor.recordings

    @torch.no_grad()
    def __call__(self, windows: torch.Tensor, relative_depths: torch.Tensor) -> torch.Tensor:
        """
        Args:
            windows: (B, H, W, 4) in [0, 1], on the device.
            relative_depths: (B, D) in [0, 1), on the device.

        Returns:
            Slices (B, D, H, W), float32.
        """
        kept = relative_depths == 0
        reversed_relative_depths = torch.where(
            kept, 0.5, 1 - relative_depths
        )  # what comes out at relative depth 0 is not used
        forward = self._turns_and_flips(windows, relative_depths)
        backward = self._turns_and_flips(windows.flip(-1), reversed_relative_depths)
        return torch.where(kept[..., None, None], forward, (forward + backward) / 2)

    def forget(self) -> None:
        """Free the memory of the recordings, for tiles of another size."""
        self.predictor.forget()

    def _turns_and_flips(self, windows: torch.Tensor, relative_depths: torch.Tensor) -> torch.Tensor:
        """Mean over the eight."""
        total = torch.zeros(*relative_depths.shape, *windows.shape[1:3], device=windows.device)
        for on_its_side, *flips in product((False, True), repeat=3):
            axes = [1 + axis for axis, flip in enumerate(flips) if flip]
            turned = windows.flip(axes)
            if on_its_side:
                turned = turned.transpose(1, 2).contiguous()
            slices = self.predictor(turned, relative_depths)
            if on_its_side:
                slices = slices.transpose(2, 3)
            total += slices.flip([1 + axis for axis in axes])
        return total / 8
