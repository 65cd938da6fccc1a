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

"""SRUNet, the stage III network that came before: a 3-D U-Net that maps coarse slices to fine ones at one whole factor.

Heinrich, Bogovic and Saalfeld 2017 (arXiv 1706.03142), with the widths and depths of the D2R paper's comparison (Table
1, "D2R-SRUNet").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from scripts.errors import InputError
from scripts.networks.trained_settings import TrainedSettings
from torch import nn

TOTAL_STRIDE = 4
"""Pixels, for two poolings by 2. Images are padded inside to multiples; tiles that begin on them agree with the
whole."""

LARGEST_FACTOR = 22
"""Above it some whole factors leave slices halfway between two input slices that no kernel reaches, a constant gray."""

MIDDLE, FACTOR = torch.tensor(0.5), torch.tensor(8.0)
"""Relative depth and factor of a call with a window alone."""

_REACH = 4  # fine planes to either side that the four convolutions of the last level see


class SRUNet(nn.Module):
    """3-D U-Net of Heinrich et al. 2017: pools within the slices, and upsamples Z on the way back to the full image.

    Three levels of 32, 64 and 128 channels, three 3 x 3 x 3 convolutions with ReLU each. K slices become factor * K
    planes. Both skips are upsampled in Z by transposed convolutions, and so is what comes from below: by ``first`` on
    the way from the third level to the second and by factor / ``first`` on the way to the first, where ``first`` is the
    smallest prime factor of ``factor``. For an even factor that is 2, as the paper's code has it (which knows no odd
    one): at 8 by 2 and 4, at 9 by 3 and 3, at 7 by 7 and 1. The strides change, the weights keep their shapes:
    2,408,257 parameters at any factor.

    On the lattice of ``lattice.py``: input slice i lies at plane i * factor of the output (every transposed convolution
    has kernel 3 and padding 1, so it centers plane i on plane i * stride), and plane j after it at relative depth j /
    factor. Of a window of four slices the planes factor to 2 * factor - 1 are the middle interval; they alone are
    computed, to the same values as in the whole stack.

    It predicts the intensities themselves, not a residual, and nothing tells it a relative depth: that is a plane's
    place in the output.

    Args:
        factor: whole number from 2 to 22, kept with the weights as the setting ``factor``.
        settings: more numbers the weights belong to (intensity percentiles, for example), compared when weights are
            loaded.

    Raises:
        InputError: for another factor.

    Sizes: any X and Y; they are padded inside to multiples of 4.

    Example::

        net = SRUNet(factor=8)
        window = torch.rand(1, 1, 64, 64, 4)                    # (B, 1, X, Y, 4), intensities scaled to [0, 1]
        middle = net(window)                                    # (B, 1, X, Y), in the middle
        features = net.encode(window)                           # one tensor: all 8 slices of the middle interval
        two = net.decode(features, torch.tensor([0.25, 0.875]), torch.tensor([8.0, 8.0]))  # (2, 1, X, Y)
    """

    def __init__(self, factor: int = 8, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.factor = check_whole_factor(factor)
        self.total_stride, self.reach = TOTAL_STRIDE, _REACH
        first = next(n for n in range(2, self.factor + 1) if self.factor % n == 0)
        self.down = nn.ModuleList(
            [_three_convolutions(1, 32), _three_convolutions(32, 64), _three_convolutions(64, 128)]
        )
        self.up_skip = nn.ModuleList([_upsample(64, 64, first, 1), _upsample(32, 32, self.factor, 1)])
        self.up = nn.ModuleList([_upsample(128, 64, first, 2), _upsample(64, 32, self.factor // first, 2)])
        self.merge = nn.ModuleList([_three_convolutions(128, 64), _three_convolutions(64, 32)])
        self.head = nn.Conv3d(32, 1, 3, padding=1)
        self.settings = TrainedSettings({**(settings or {}), "factor": self.factor})
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # a fifth faster on a CPU

    def encode(self, window: torch.Tensor) -> list[torch.Tensor]:
        """Window (B, 1, X, Y, 4) in [0, 1] -> [all slices of its middle interval (B, factor, X, Y)] for
        :meth:`decode`."""
        return [self._planes(window, self.factor, 2 * self.factor)]

    def stack(self, window: torch.Tensor) -> torch.Tensor:
        """The whole output, as the paper's code uses it: (B, 1, X, Y, K) in [0, 1] -> (B, 1, X, Y, factor * K)."""
        return self._planes(window, 0, self.factor * window.shape[4]).permute(0, 2, 3, 1)[:, None]

    def decode(self, features: list[torch.Tensor], relative_depth: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Slices of the encoded windows, the nearest to relative_depth * factor.

        Args:
            features: of B windows.
            relative_depth: (N,) in [0, 1), N a multiple of B: the first N / B belong to the first window, and so on.
                Those that are no multiple of 1 / factor get the nearest slice; it is not interpolated.
            factor: (N,), not used: it is always that of the network.

        Returns:
            (N, 1, X, Y), intensities in the scale of the window.
        """
        slices = features[0]
        each = relative_depth.shape[0] // slices.shape[0]
        windows = torch.arange(relative_depth.shape[0], device=slices.device) // each
        index = torch.round(relative_depth.float() * self.factor).long().clamp(0, self.factor - 1)
        return slices[windows, index.to(slices.device)][:, None]

    def forward(
        self, window: torch.Tensor, relative_depth: torch.Tensor = MIDDLE, factor: torch.Tensor = FACTOR
    ) -> torch.Tensor:
        """Windows (B, 1, X, Y, 4), ``relative_depth`` (scalar or (B,)) -> slices (B, 1, X, Y); ``factor`` is not
        used."""
        batch = window.shape[0]
        return self.decode(self.encode(window), relative_depth.expand(batch), factor.expand(batch))

    def _planes(self, window: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """Planes ``begin`` to ``end`` - 1 of the output: (B, 1, X, Y, K) -> (B, end - begin, X, Y)."""
        planes = window[:, 0].permute(0, 3, 1, 2)
        planes = F.pad(
            planes, [0, -window.shape[3] % self.total_stride, 0, -window.shape[2] % self.total_stride], mode="replicate"
        )
        fine = planes[:, None]
        levels: list[torch.Tensor] = []
        for i, convolutions in enumerate(self.down):
            if i > 0:
                fine = F.max_pool3d(fine, [1, 2, 2])
            fine = convolutions(fine)
            levels.append(fine)

        low, high = max(begin - self.reach, 0), min(end + self.reach, self.factor * window.shape[4])
        for i, (up_skip, up, merge) in enumerate(zip(self.up_skip, self.up, self.merge)):
            fine, skip = up(fine), up_skip(levels[1 - i])
            if i == 1:  # the last and by far largest level: only planes that reach the asked ones
                fine, skip = fine[:, :, low:high], skip[:, :, low:high]
            fine = merge(torch.cat([fine, skip], 1))
        result = self.head(fine)[:, 0, begin - low : end - low]
        return result[:, :, : window.shape[2], : window.shape[3]]


def check_whole_factor(factor: float) -> int:
    """Return ``factor`` as a whole number.

    Raises:
        InputError: if it is none from 2 to 22.
    """
    if factor not in range(2, LARGEST_FACTOR + 1):
        raise InputError(
            f"SRUNet at factor {factor}: it knows one whole factor from 2 to {LARGEST_FACTOR}; give a whole "
            "--factor, or "
            "--architecture aenet, which takes any"
        )
    return int(factor)


def _three_convolutions(channels_in: int, channels: int) -> nn.Sequential:
    """(B, C_in, Z, H, W) -> (B, C, Z, H, W)."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [nn.Conv3d(channels if i else channels_in, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _upsample(channels_in: int, channels: int, axial: int, lateral: int) -> nn.ConvTranspose3d:
    """(B, C_in, Z, H, W) -> (B, C, axial * Z, lateral * H, lateral * W), plane i centered on plane axial * i."""
    stride, rest = (axial, lateral, lateral), (axial - 1, lateral - 1, lateral - 1)
    return nn.ConvTranspose3d(channels_in, channels, 3, stride, padding=1, output_padding=rest)
