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

"""AENet, the stage III network: four neighboring slices in, the slice at a relative depth between the middle two out.

The FLAVR pattern (Kalluri et al. 2023, arXiv 2012.08512) with the channel gate of the paper's Eq. 7, conditioned on the
relative depth and the factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scripts.networks.cell_average import POOL_CELL, cell_average, spread
from scripts.networks.plane_conv import PLANES, PlaneConv, PlaneConvTranspose
from scripts.networks.trained_settings import TrainedSettings
from torch import nn

MIDDLE, FACTOR = torch.tensor(0.5), torch.tensor(8.0)
"""Relative depth and factor of a call with a window alone."""

_DEPTH_FREQUENCIES = 8
_CONDITION_WIDTH = 64


class ChannelGate(nn.Module):
    """Eq. 7: sigmoid(W pool(f) + b) * f with a full C x C map; the pool is local (see ``cell_average``).

    Args:
        channels: C.
        cell: side of a pooling cell in pixels of this feature map.
    """

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """sigmoid(W pool(x) + b) of each cell: (B, 4 C, H, W) -> (B, C, ceil(H / cell), ceil(W / cell))."""
        average = cell_average(x, self.cell).unflatten(1, [-1, self.mix.in_channels]).mean(1)
        return torch.sigmoid(self.mix(average))


def film(x: torch.Tensor, gate: torch.Tensor, cell: int, scale_and_shift: torch.Tensor) -> torch.Tensor:
    """Gate, FiLM (Perez et al. 2018) and LeakyReLU: x (N, 4 C, H, W), gate (N, C, h, w), scale_and_shift (N, 2 C)."""
    scale, shift = scale_and_shift[:, :, None, None].chunk(2, 1)
    gain = spread(gate * (1 + scale), x, cell)  # the scale joins the small map: one pass less over the large one
    x = torch.addcmul(shift.unsqueeze(1), x.unflatten(1, [-1, gain.shape[1]]), gain.unsqueeze(1))
    return F.leaky_relu(x.flatten(1, 2), 0.2, inplace=True)


def for_each_slice(windows: torch.Tensor, each: int) -> torch.Tensor:
    """Features of B windows, repeated for each of their slices; a single window is left to broadcasting."""
    return windows if windows.shape[0] == 1 else windows.repeat_interleave(each, 0)


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions and a gate around a skip; ``stride`` acts within the slices only."""

    def __init__(self, channels_in: int, channels: int, stride: int, cell: int) -> None:
        super().__init__()
        self.conv1 = PlaneConv(channels_in, channels, 3, (1, stride, stride), 1)
        self.conv2 = PlaneConv(channels, channels, 3, 1, 1)
        self.gate = ChannelGate(channels, cell)
        self.skip = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else PlaneConv(channels_in, channels, 1, (1, stride, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 4 C_in, H, W) -> (B, 4 C, H / stride, W / stride)."""
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        gain = spread(self.gate(y), y, self.gate.cell)
        planes = [-1, gain.shape[1]]
        y = torch.addcmul(self.skip(x).unflatten(1, planes), y.unflatten(1, planes), gain.unsqueeze(1))
        return F.relu(y.flatten(1, 2), inplace=True)


def _upsample(channels_in: int, channels: int, stride: int, bias: bool) -> nn.Module:
    """Convolution that undoes an in-plane stride of 1 or 2."""
    if stride == 1:
        return PlaneConv(channels_in, channels, 3, 1, 1, bias=bias)
    return PlaneConvTranspose(channels_in, channels, (3, 4, 4), (1, 2, 2), 1, bias=bias)


class DecoderStage(nn.Module):
    """One decoder step: convolution of [features from below, encoder skip], gate, FiLM by the condition, LeakyReLU.

    A convolution of a concatenation is the sum of two convolutions. The skip's half does not depend on depth and is
    computed by AENet once a window; here is the half that is computed once a slice.
    """

    def __init__(self, channels_below: int, channels: int, stride: int, cell: int) -> None:
        super().__init__()
        self.from_below = _upsample(channels_below, channels, stride, bias=False)
        self.gate = ChannelGate(channels, cell)
        self.film = nn.Linear(_CONDITION_WIDTH, 2 * channels)

    def forward(self, below: torch.Tensor, from_skip: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """``below`` (N or 1, 4 C_below, h, w), ``from_skip`` (B, 4 C, H, W) with B dividing N -> (N, 4 C, H, W)."""
        x = self.from_below(below)
        x = x.add_(for_each_slice(from_skip, x.shape[0] // from_skip.shape[0]))
        return film(x, self.gate(x), self.gate.cell, self.film(condition))


class BottomStage(nn.Module):
    """The lowest step of the decoder: convolution and gate do not depend on depth, only the FiLM is done once a
    slice."""

    def __init__(self, channels_in: int, channels: int, stride: int, cell: int) -> None:
        super().__init__()
        self.conv = _upsample(channels_in, channels, stride, bias=True)
        self.gate = ChannelGate(channels, cell)
        self.film = nn.Linear(_CONDITION_WIDTH, 2 * channels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of B windows (B, 4 C_in, h, w) -> convolved features (B, 4 C, H, W) and their gate in cells."""
        x = self.conv(x)
        return [x, self.gate(x)]

    def at_depth(self, x: torch.Tensor, gate: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward` gave, for N slices (N a multiple of B): (N, 4 C, H, W)."""
        each = condition.shape[0] // x.shape[0]
        return film(for_each_slice(x, each), for_each_slice(gate, each), self.gate.cell, self.film(condition))


class OutputStage(nn.Module):
    """Fuses the four planes into one; a sub-pixel convolution (Shi et al. 2016) undoes the stem's stride."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        fused = 2 * channels
        self.stem = nn.Conv2d(PLANES * channels, fused, 1)
        self.fuse = nn.Conv2d(PLANES * channels, fused, 1, bias=False)
        self.refine = nn.Conv2d(fused, fused, 3, padding=1)
        self.head = nn.Conv2d(fused, stride**2, 3, padding=1)
        self.to_pixels = nn.PixelShuffle(stride)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, stem: torch.Tensor) -> torch.Tensor:
        """x (N, 4 C, h, w), stem (B, 2 C, h, w) with B dividing N -> (N, 1, h * stride, w * stride)."""
        x = self.fuse(x) + for_each_slice(stem, x.shape[0] // stem.shape[0])
        x = F.leaky_relu(self.refine(F.leaky_relu(x, 0.2, inplace=True)), 0.2, inplace=True)
        return self.to_pixels(self.head(x))


class AENet(nn.Module):
    """Axial Enhancement Network (paper section 2.3) conditioned on the relative depth and the factor.

    Predicts the residual over linear interpolation of the middle two slices; its last layer starts at zero, so an
    untrained network is linear interpolation. Both conditions enter in the decoder only: a window is encoded once and
    decoded for each new slice. The decoder ends at the stem's resolution, which costs a quarter of convolutions of all
    planes at full resolution.

    Args:
        widths: channels of the four encoder stages.
        strides: in-plane strides of the stem and the four stages, each 1 or 2; their product is at most 32.
        settings: numbers the weights belong to (intensity percentiles, factors), compared when weights are loaded.

    Sizes: any X and Y above 3; they are padded inside to multiples of the product of the strides.

    Example::

        net = AENet(widths=(16, 32, 64, 128))
        window = torch.rand(1, 1, 64, 64, 4)                    # (B, 1, X, Y, 4), intensities scaled to [0, 1]
        middle = net(window)                                    # (B, 1, X, Y), in the middle, at factor 8 by default
        features = net.encode(window)
        three = net.decode(features, torch.tensor([0.25, 0.5, 0.75]), torch.tensor([4.0, 4.0, 4.0]))  # (3, 1, X, Y)
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        strides: Sequence[int] = (2, 1, 2, 2, 1),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.depth_frequencies = _DEPTH_FREQUENCIES
        totals = [math.prod(strides[: i + 1]) for i in range(len(strides))]
        self.multiple = totals[-1]
        cells = [POOL_CELL // total for total in totals]
        self.stem = PlaneConv(1, w0, (3, 7, 7), (1, strides[0], strides[0]), (1, 3, 3))
        channels = [w0, w0, w1, w2, w3]
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(channels[i], channels[i + 1], strides[i + 1], cells[i + 1]),
                ResidualBlock(channels[i + 1], channels[i + 1], 1, cells[i + 1]),
            )
            for i in range(4)
        )
        self.bottom = BottomStage(w3, w2, strides[4], cells[3])
        # (channels from below, of the skip, out), stride undone, pooling cell of the output
        steps = [
            ((w2, w2, w1), strides[3], cells[2]),
            ((w1, w1, w0), strides[2], cells[1]),
            ((w0, w0, w0), strides[1], cells[0]),
        ]
        self.decoder = nn.ModuleList(DecoderStage(below, out, s, cell) for (below, _, out), s, cell in steps)
        self.from_skip = nn.ModuleList(_upsample(skip, out, s, bias=True) for (_, skip, out), s, _ in steps)
        self.condition = nn.Sequential(
            nn.Linear(2 * _DEPTH_FREQUENCIES + 1, _CONDITION_WIDTH),
            nn.ReLU(),
            nn.Linear(_CONDITION_WIDTH, _CONDITION_WIDTH),
        )
        self.output = OutputStage(w0, strides[0])
        self.settings = TrainedSettings(settings or {})

    def encode(self, window: torch.Tensor) -> list[torch.Tensor]:
        """All that does not depend on depth: window (B, 1, X, Y, 4) in [0, 1] -> features for :meth:`decode`."""
        middle = window[:, 0, :, :, 1:3].permute(0, 3, 1, 2)
        padding = [0, -window.shape[3] % self.multiple, 0, -window.shape[2] % self.multiple]
        planes = F.pad(window[:, 0].permute(0, 3, 1, 2), padding, mode="replicate")
        x = F.relu(self.stem(planes.contiguous(memory_format=torch.channels_last)))
        skips = [x]
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        features = [middle, self.output.stem(skips[0])]
        features.extend(self.bottom(x))
        for i, from_skip in enumerate(self.from_skip):
            features.append(from_skip(skips[3 - i]))
        return features

    def decode(self, features: list[torch.Tensor], relative_depth: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Slices at ``relative_depth`` between the middle two of the encoded windows.

        Args:
            features: of B windows.
            relative_depth: (N,) in [0, 1), N a multiple of B: the first N / B belong to the first window, and so on.
            factor: (N,) output over input sampling along Z, any number above 1.

        Returns:
            (N, 1, X, Y), intensities in the scale of the window.
        """
        octaves = torch.arange(self.depth_frequencies, device=relative_depth.device)
        angles = relative_depth.float()[:, None] * math.pi * 2.0**octaves
        log_factor = torch.log2(factor.float())[:, None] - 3  # 0 at the paper's factor of 8
        condition = self.condition(torch.cat([torch.sin(angles), torch.cos(angles), log_factor], 1))

        x = self.bottom.at_depth(features[2], features[3], condition)
        for i, stage in enumerate(self.decoder):
            x = stage(x, features[i + 4], condition)
        middle = for_each_slice(features[0], relative_depth.shape[0] // features[0].shape[0])
        residual = self.output(x, features[1])[:, :, : middle.shape[2], : middle.shape[3]]

        weight = relative_depth.to(middle.dtype)[:, None, None, None]
        return middle[:, :1] * (1 - weight) + middle[:, 1:] * weight + residual

    def forward(
        self, window: torch.Tensor, relative_depth: torch.Tensor = MIDDLE, factor: torch.Tensor = FACTOR
    ) -> torch.Tensor:
        """Windows (B, 1, X, Y, 4), ``relative_depth`` and ``factor``, each a scalar or (B,) -> slices (B, 1, X, Y)."""
        batch = window.shape[0]
        relative_depth = relative_depth.to(window.device).expand(batch)
        factor = factor.to(window.device).expand(batch)
        return self.decode(self.encode(window), relative_depth, factor)
