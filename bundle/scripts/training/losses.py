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

"""Losses of stage I (Eq. 3) and stage III (Eq. 8)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from scripts.errors import InputError
from torch import nn

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


class ReverseStepLoss(nn.Module):
    """Eq. 3 with weight 1: L1 between the mean of the reverse Euler step and the optimal state x*_(t-1).

    The step's mean is linear in the predicted noise, so a target (of
    :class:`~scripts.training.prepare_batch.NoisePrepareBatch`) is a mapping with

    - "mean": the step's mean for zero noise, (B, 1, H, W),
    - "gain": what a unit of noise takes from it, (B, 1, 1, 1),
    - "optimum": x*_(t-1), (B, 1, H, W).
    """

    def forward(self, noise: torch.Tensor, target: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``noise``: predicted noise (B, 1, H, W). Returns a scalar, in units of the image range."""
        return F.l1_loss(target["mean"] - target["gain"] * noise, target["optimum"])


class FocalFrequencyLoss(nn.Module):
    """Focal frequency loss (Jiang et al. 2021, arXiv 2012.12821): squared spectral error, weighted towards frequencies
    that are still wrong.

    Args:
        alpha: exponent of the weight.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice, any scale -> scalar. Computed in single precision whatever the input's."""
        difference = torch.fft.fft2(prediction.float() - target.float(), norm="ortho")
        power = difference.real**2 + difference.imag**2
        with torch.no_grad():
            weight = power.sqrt() ** self.alpha
            weight = weight / weight.amax((-2, -1), keepdim=True)
            weight = torch.nan_to_num(weight, nan=0.0).clamp(0, 1)  # identical images give 0 / 0
        return (weight * power).mean()


class StructuralSimilarityLoss(nn.Module):
    """1 - SSIM (Wang et al. 2004) with a Gaussian window of 11 pixels and sigma 1.5 and a data range of 1.

    SSIM is averaged over where the window fits. The values are those of ``monai.losses.SSIMLoss``, which copies its
    window from main memory in each call and so cannot be recorded in a CUDA graph. The window is separable: two
    products with banded matrices are all five averages.
    """

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice, float32, sides of 11 or more -> scalar."""
        rows, columns = (_window(side, target) for side in target.shape[-2:])
        maps = torch.stack([prediction, target, prediction**2, target**2, prediction * target])
        x, y, xx, yy, xy = (rows @ maps @ columns.transpose(0, 1)).unbind()
        c1, c2 = 0.01**2, 0.03**2
        contrast = (2 * (xy - x * y) + c2) / (xx - x**2 + yy - y**2 + c2)
        return 1 - ((2 * x * y + c1) / (x**2 + y**2 + c1) * contrast).mean()


def _window(size: int, like: torch.Tensor) -> torch.Tensor:
    """Gaussian averages of a line of ``size`` pixels where the window fits: (size - 10, size)."""
    place = torch.arange(size, device=like.device, dtype=like.dtype)
    half = _SSIM_WINDOW // 2
    distance = place[None, :] - place[half : size - half, None]
    weight = torch.exp(-(distance**2) / (2 * _SSIM_SIGMA**2)) * (distance.abs() <= half)
    return weight / weight.sum(1, keepdim=True)


class ReconstructionLoss(nn.Module):
    """Eq. 8: L1 + ssim_weight * (1 - SSIM) + frequency_weight * focal frequency loss.

    Args:
        ssim_weight: 1 in the paper.
        frequency_weight: 100 in the paper.
    """

    def __init__(self, ssim_weight: float = 1.0, frequency_weight: float = 100.0) -> None:
        super().__init__()
        self.ssim_weight = ssim_weight
        self.frequency_weight = frequency_weight
        self.ssim = StructuralSimilarityLoss()
        self.frequency = FocalFrequencyLoss()

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice, intensities scaled to [0, 1], sides of 11 or more -> scalar.

        Raises:
            InputError: if a side is shorter.
        """
        if min(target.shape[-2:]) < _SSIM_WINDOW:
            raise InputError(
                f"the planes are {target.shape[-2]} x {target.shape[-1]} voxels and the loss needs at least "
                f"{_SSIM_WINDOW}: use a volume with more slices, or a larger --prior_factor or --patch_size"
            )
        prediction, target = prediction.float(), target.float()
        loss = F.l1_loss(prediction, target)
        loss = loss + self.ssim_weight * self.ssim(prediction, target)
        return loss + self.frequency_weight * self.frequency(prediction, target)
