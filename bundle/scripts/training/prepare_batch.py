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

"""Turns batches of the data into inputs and targets of the networks of stages I and III."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatch
from scripts.diffusion.sde import MeanRevertingSDE


class NoisePrepareBatch(PrepareBatch):
    """Stage I training batch: draws a timestep t and noise for each image.

    Takes "image" (x0) and "mu", each (B, 1, H, W) in [0, 1]. Returns the network's input [x_t - mu, mu] (B, 2, H, W),
    the target of :class:`~scripts.training.losses.ReverseStepLoss`, and t (B,), uniform in 1..T.

    Args:
        sde: that the prior is learned for.
    """

    def __init__(self, sde: MeanRevertingSDE) -> None:
        self.sde = sde

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[torch.Tensor], dict]:
        x0, mu = (plain_tensor(batchdata[key], device, non_blocking) for key in ("image", "mu"))
        t = torch.randint(1, self.sde.timesteps + 1, (x0.shape[0],), device=x0.device)
        x = self.sde.state(x0, mu, t, torch.randn_like(x0))
        of_state, gain = self.sde.reverse_drift(t)
        bridge = self.sde.bridge(t, t - 1)
        target = {
            "mean": x + of_state * (x - mu),
            "gain": gain,
            "optimum": mu + bridge.from_state * (x - mu) + bridge.from_clean * (x0 - mu),
        }
        return torch.cat([x - mu, mu], 1), target, (t,), {}


class RestorationPrepareBatch(PrepareBatch):
    """Stage I validation batch: the interpolated images (B, 1, H, W) are the input, the sharp ones the target."""

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return plain_tensor(batchdata["mu"], device, non_blocking), plain_tensor(
            batchdata["image"], device, non_blocking
        )


class SequencePrepareBatch(PrepareBatch):
    """Stage III batch: windows (B, 1, H, W, 4), targets (B, D, H, W), relative depths (B, D), factors (B,)."""

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], dict]:
        window, label, relative_depth, factor = (
            plain_tensor(batchdata[key], device, non_blocking) for key in ("image", "label", "relative_depth", "factor")
        )
        return window, label, (relative_depth, factor), {}


def plain_tensor(
    value: torch.Tensor, device: str | torch.device | None = None, non_blocking: bool = False
) -> torch.Tensor:
    """A tensor on the device without the metadata of a MetaTensor, which costs more time than a small training step."""
    return torch.Tensor.as_subclass(value, torch.Tensor).to(device, non_blocking=non_blocking)
