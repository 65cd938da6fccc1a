# SPDX-License-Identifier: Apache-2.0
"""AENet, the stage III network: four neighbouring slices and a depth in, the slice at that depth out.

The FLAVR pattern (Kalluri et al. 2023, arXiv 2012.08512) with the channel gate of the paper's Eq. 7 and conditioning on depth and gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.local_average import WINDOW, cell_average, spread
from scripts.networks.settings import Settings

_DEPTH_FREQUENCIES = 8
_CONDITION_WIDTH = 64


class ChannelGate(nn.Module):
    """Eq. 7: sigmoid(W pool(f) + b) * f with a full C x C map; the pool is local (see ``local_average``).

    Args:
        channels: C.
        cell: side of a pooling cell in pixels of this feature map.
    """

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 4, H, W) -> the same shape."""
        gate = torch.sigmoid(self.mix(cell_average(x.mean(2), self.cell)))
        return x * spread(gate, x).unsqueeze(2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions and a gate around a skip; ``stride`` acts within the slices only."""

    def __init__(self, channels_in: int, channels: int, stride: int, cell: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels, 3, (1, stride, stride), 1)
        self.conv2 = nn.Conv3d(channels, channels, 3, 1, 1)
        self.gate = ChannelGate(channels, cell)
        self.skip = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Conv3d(channels_in, channels, 1, (1, stride, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, 4, H, W) -> (B, C, 4, H / stride, W / stride)."""
        return F.relu(self.gate(self.conv2(F.relu(self.conv1(x)))) + self.skip(x))


def _upsample(channels_in: int, channels: int, stride: int, bias: bool) -> nn.Module:
    """Convolution that undoes an in-plane stride of 1 or 2."""
    if stride == 1:
        return nn.Conv3d(channels_in, channels, 3, 1, 1, bias=bias)
    return nn.ConvTranspose3d(channels_in, channels, (3, 4, 4), (1, 2, 2), 1, bias=bias)


class DecoderStage(nn.Module):
    """One decoder step: convolution of [features from below, encoder skip], gate, FiLM by the condition, LeakyReLU.

    A convolution of a concatenation is the sum of two convolutions. The skip's half does not depend on depth and is computed by
    AENet once a window; here is the half that is computed once a slice.
    """

    def __init__(self, channels_below: int, channels: int, stride: int, cell: int) -> None:
        super().__init__()
        self.from_below = _upsample(channels_below, channels, stride, bias=True)
        self.gate = ChannelGate(channels, cell)
        self.film = nn.Linear(_CONDITION_WIDTH, 2 * channels)

    def forward(self, below: torch.Tensor, from_skip: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """``below`` (N, C_below, 4, h, w), ``from_skip`` (B, C, 4, H, W) with B dividing N -> (N, C, 4, H, W)."""
        x = self.from_below(below)
        windows = from_skip.shape[0]
        x = (x.unflatten(0, [windows, -1]) + from_skip.unsqueeze(1)).flatten(0, 1)
        return modulate(self.gate(x), self.film(condition))


def modulate(x: torch.Tensor, film: torch.Tensor) -> torch.Tensor:
    """FiLM (Perez et al. 2018) and LeakyReLU: x (N, C, 4, H, W), film (N, 2 C)."""
    scale, shift = film[:, :, None, None, None].chunk(2, 1)
    return F.leaky_relu(x * (1 + scale) + shift, 0.2)


class AENet(nn.Module):
    """Axial Enhancement Network (paper section 2.3) conditioned on depth and gap.

    Predicts the residual over linear interpolation of the middle two slices; its last layer starts at zero, so an untrained
    network is linear interpolation. Depth and gap enter in the decoder only: a window is encoded once and decoded for each new slice.

    Args:
        widths: channels of the four encoder stages.
        strides: in-plane strides of the stem and the four stages, each 1 or 2; their product is at most 32.
        settings: numbers the weights belong to (intensity percentiles, gap range), compared when weights are loaded.

    Sizes: any X and Y above 3; they are padded inside to multiples of 32 (``local_average.WINDOW``).

    Example::

        net = AENet(widths=(16, 32, 64, 128))
        slab = torch.rand(1, 1, 64, 64, 4)                    # (B, 1, X, Y, 4), intensities scaled to [0, 1]
        middle = net(slab)                                    # (B, 1, X, Y), depth 0.5 and gap 8 by default
        features = net.encode(slab)
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
        self.window = WINDOW
        self.depth_frequencies = _DEPTH_FREQUENCIES
        totals = [math.prod(strides[: i + 1]) for i in range(len(strides))]
        cells = [WINDOW // total for total in totals]
        self.stem = nn.Conv3d(1, w0, (3, 7, 7), (1, strides[0], strides[0]), (1, 3, 3))
        channels = [w0, w0, w1, w2, w3]
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(channels[i], channels[i + 1], strides[i + 1], cells[i + 1]),
                ResidualBlock(channels[i + 1], channels[i + 1], 1, cells[i + 1]),
            )
            for i in range(4)
        )
        self.bottom = nn.Sequential(_upsample(w3, w2, strides[4], bias=True), ChannelGate(w2, cells[3]))
        self.bottom_film = nn.Linear(_CONDITION_WIDTH, 2 * w2)
        # (channels from below, of the skip, out), stride undone, pooling cell of the output
        steps = [
            ((w2, w2, w1), strides[3], cells[2]),
            ((w1, w1, w0), strides[2], cells[1]),
            ((w0, w0, w0), strides[1], cells[0]),
            ((w0, w0, w0), strides[0], WINDOW),
        ]
        self.decoder = nn.ModuleList(DecoderStage(below, out, s, cell) for (below, _, out), s, cell in steps)
        self.from_skip = nn.ModuleList(_upsample(skip, out, s, bias=False) for (_, skip, out), s, _ in steps)
        self.condition = nn.Sequential(
            nn.Linear(2 * _DEPTH_FREQUENCIES + 1, _CONDITION_WIDTH),
            nn.ReLU(),
            nn.Linear(_CONDITION_WIDTH, _CONDITION_WIDTH),
        )
        self.fuse = nn.Conv2d(4 * w0, w0, 1)
        self.head = nn.Conv2d(w0, 1, 7, padding=3, padding_mode="reflect")
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.settings = Settings(settings or {})

    def encode(self, slab: torch.Tensor) -> list[torch.Tensor]:
        """All that does not depend on depth: slab (B, 1, X, Y, 4) in [0, 1] -> features for :meth:`decode`."""
        middle = slab[:, 0, :, :, 1:3].permute(0, 3, 1, 2)
        slab = slab.permute(0, 1, 4, 2, 3).contiguous()
        padding = [0, -slab.shape[4] % self.window, 0, -slab.shape[3] % self.window, 0, 0]
        x = F.relu(self.stem(F.pad(slab, padding, mode="replicate")))
        skips = [x]
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        features = [middle, self.bottom(x)]
        for i, from_skip in enumerate(self.from_skip):
            features.append(from_skip(skips[3 - i]))
        return features

    def decode(self, features: list[torch.Tensor], depth: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        """Slices at ``depth`` between the middle two of the encoded windows.

        Args:
            features: of B windows.
            depth: (N,) in [0, 1), N a multiple of B: the first N / B belong to the first window, and so on.
            gap: (N,) distance between neighbouring input slices in fine voxels, the factor r.

        Returns:
            (N, 1, X, Y), intensities in the scale of the slab.
        """
        octaves = torch.arange(self.depth_frequencies, device=depth.device)
        angles = depth.float()[:, None] * math.pi * 2.0**octaves
        gap_feature = torch.log2(gap.float())[:, None] - 3  # 0 at the paper's factor of 8
        condition = self.condition(torch.cat([torch.sin(angles), torch.cos(angles), gap_feature], 1))

        middle, bottom = features[0], features[1]
        each = depth.shape[0] // middle.shape[0]
        x = modulate(bottom.repeat_interleave(each, 0), self.bottom_film(condition))
        for i, stage in enumerate(self.decoder):
            x = stage(x, features[i + 2], condition)
        residual = self.head(F.leaky_relu(self.fuse(x.flatten(1, 2)), 0.2))
        residual = residual[:, :, : middle.shape[2], : middle.shape[3]]

        middle = middle.repeat_interleave(each, 0)
        weight = depth.to(middle.dtype)[:, None, None, None]
        return middle[:, :1] * (1 - weight) + middle[:, 1:] * weight + residual

    def forward(
        self,
        slab: torch.Tensor,
        depth: torch.Tensor = torch.tensor(0.5),
        gap: torch.Tensor = torch.tensor(8.0),
    ) -> torch.Tensor:
        """Slices (B, 1, X, Y) at ``depth`` (scalar or (B,)) for a gap (scalar or (B,)) from slabs (B, 1, X, Y, 4)."""
        batch = slab.shape[0]
        depth = depth.to(slab.device).expand(batch)
        gap = gap.to(slab.device).expand(batch)
        return self.decode(self.encode(slab), depth, gap)
