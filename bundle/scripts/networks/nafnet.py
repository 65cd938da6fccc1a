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

"""ConditionalNAFNet, the stage I noise predictor (NAFNet, Chen et al. 2022, as used by Refusion, arXiv 2304.08291)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scripts.errors import InputError
from scripts.networks.cell_average import POOL_CELL, cell_average, spread
from scripts.networks.trained_settings import TrainedSettings
from torch import nn


def simple_gate(x: torch.Tensor) -> torch.Tensor:
    """Product of the two halves of the channels (dimension 1)."""
    first, second = x.chunk(2, 1)
    return first * second


def modulate(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """FiLM (Perez et al. 2018): x (B, C, H, W) times scale plus shift, both (B, C), in the type of x."""
    return torch.addcmul(shift.to(x.dtype)[:, :, None, None], x, scale.to(x.dtype)[:, :, None, None])


class PixelLinear(nn.Conv2d):
    """1 x 1 convolution as a matrix product over pixels, without copies of channels-last tensors."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
        """(B, C_in, H, W) -> (B, C_out, H, W), times ``scale`` (C_out,), which joins the weights."""
        weight, bias = self.weight.flatten(1), self.bias
        if scale is not None:
            weight, bias = weight * scale[:, None], None if bias is None else bias * scale
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def channel_norm(x: torch.Tensor) -> torch.Tensor:
    """LayerNorm over the channels of each pixel of (B, C, H, W), without copies of channels-last tensors."""
    # Autocast would store the result in single precision, which costs more time than it gives accuracy: the sums are in
    # single precision anyway.
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]]).permute(0, 3, 1, 2)


class ResidualChannelAttention(nn.Module):
    """RCAB (Zhang et al. 2018): two convolutions and a squeezed channel gate around a skip."""

    def __init__(self, channels: int, cell: int, squeeze: int = 16) -> None:
        super().__init__()
        self.cell = cell
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        hidden = max(1, channels // squeeze)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape."""
        body = self.body(x)
        return x + body * spread(self.attention(cell_average(body, self.cell)), body, self.cell)


class NAFBlock(nn.Module):
    """Nonlinear-activation-free block with FiLM by time; its residual scales start at zero, so it starts as
    identity."""

    def __init__(self, channels: int, time_channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.time = nn.Linear(time_channels // 2, 4 * channels)
        self.gain1 = nn.Parameter(torch.ones(channels))
        self.expand1 = PixelLinear(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project1 = PixelLinear(channels, channels, 1)
        self.gain2 = nn.Parameter(torch.ones(channels))
        self.expand2 = PixelLinear(channels, 2 * channels, 1)
        self.project2 = PixelLinear(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W), time (B, time_channels) -> (B, C, H, W)."""
        film = self.time(simple_gate(time))
        shift1, scale1, shift2, scale2 = film.chunk(4, 1)

        y = modulate(channel_norm(x), self.gain1 * (1 + scale1), shift1)
        y = simple_gate(self.depthwise(self.expand1(y)))
        y = y * spread(self.attention(cell_average(y, self.cell)), y, self.cell)
        x = x + self.project1(y, self.beta)

        y = modulate(channel_norm(x), self.gain2 * (1 + scale2), shift2)
        return x + self.project2(simple_gate(self.expand2(y)), self.gamma)


class NAFStage(nn.ModuleList):
    """NAF blocks one after the other."""

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W), time (B, time_channels) -> (B, C, H, W)."""
        for block in self:
            x = block(x, time)
        return x


class ConditionalNAFNet(nn.Module):
    """Predicts the noise of x_t from [x_t - mu, mu] and t.

    Args:
        width: channels at full resolution; they double at each level.
        encoder_blocks: NAF blocks of each encoder level; as many halvings follow.
        middle_blocks: NAF blocks at the lowest resolution.
        decoder_blocks: NAF blocks of each decoder level.
        pixel_unshuffle: side of the squares of pixels that become channels at the beginning and pixels again at the
            end. With 2 the network works at half the resolution, which at twice the width moves half the memory.
        settings: numbers the weights belong to (noise level, timesteps, factor, percentiles), compared when weights are
            loaded.

    The paper's code uses width 64, [14, 1, 1, 1], 1, [1, 1, 1, 1]: 20,400,261 parameters.

    Example::

        net = ConditionalNAFNet(width=32, encoder_blocks=(2, 2, 4), middle_blocks=4, decoder_blocks=(2, 2, 2))
        noise = net(torch.rand(2, 2, 121, 128), torch.tensor([1, 100]))    # (2, 1, 121, 128); any size
    """

    frequencies: torch.Tensor

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (2, 2, 4),
        middle_blocks: int = 4,
        decoder_blocks: Sequence[int] = (2, 2, 2),
        pixel_unshuffle: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise InputError(
                f"--encoder_blocks {list(encoder_blocks)} and --decoder_blocks {list(decoder_blocks)}: give lists of "
                "the same length"
            )
        if POOL_CELL % (pixel_unshuffle * 2 ** len(encoder_blocks)):
            raise InputError(
                f"--pixel_unshuffle {pixel_unshuffle} with {len(encoder_blocks)} --encoder_blocks: give 1, 2, 4, 8 "
                "or 16, and at most 5 blocks in "
                "brackets, one less for each doubling"
            )
        if width < 4 or width % 2:
            raise InputError(f"--width {width}: give an even number from 4 up")
        self.width = width
        self.multiple = pixel_unshuffle * 2 ** len(encoder_blocks)
        time_channels = 4 * width
        self.time_expand = nn.Linear(width, 2 * time_channels)
        self.time_project = nn.Linear(time_channels, time_channels)
        self.to_channels = nn.PixelUnshuffle(pixel_unshuffle)
        self.intro = nn.Conv2d(2 * pixel_unshuffle**2, width, 3, padding=1)
        self.refine = ResidualChannelAttention(width, POOL_CELL // pixel_unshuffle)
        self.encoder, self.down = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.up = nn.ModuleList(), nn.ModuleList()

        channels, cell = width, POOL_CELL // pixel_unshuffle
        for blocks in encoder_blocks:
            self.encoder.append(NAFStage(NAFBlock(channels, time_channels, cell) for _ in range(blocks)))
            self.down.append(nn.Conv2d(channels, 2 * channels, 2, 2))
            channels, cell = 2 * channels, cell // 2
        self.middle = NAFStage(NAFBlock(channels, time_channels, cell) for _ in range(middle_blocks))
        for blocks in decoder_blocks:
            self.up.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            channels, cell = channels // 2, cell * 2
            self.decoder.append(NAFStage(NAFBlock(channels, time_channels, cell) for _ in range(blocks)))
        self.ending = nn.Conv2d(width, pixel_unshuffle**2, 3, padding=1)
        self.to_pixels = nn.PixelShuffle(pixel_unshuffle)
        half = width // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(10000) * torch.arange(half) / max(1, half - 1)), persistent=False
        )
        self.settings = TrainedSettings(settings or {})

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x (B, 2, H, W), t (B,) in 1..T -> predicted noise (B, 1, H, W); any H and W, which are padded inside."""
        height, width = x.shape[-2:]
        x = self.to_channels(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate"))
        x = x.contiguous(memory_format=torch.channels_last)

        angles = t.float()[:, None] * self.frequencies
        time = torch.cat([torch.sin(angles), torch.cos(angles)], 1)
        time = self.time_project(simple_gate(self.time_expand(time)))

        x = self.intro(x)
        x = x + self.refine(x)
        skips = []
        for stage, down in zip(self.encoder, self.down):
            x = stage(x, time)
            skips.append(x)
            x = down(x)
        x = self.middle(x, time)
        for stage, up in zip(self.decoder, self.up):
            x = stage(up(x) + skips.pop(), time)
        return self.to_pixels(self.ending(x))[..., :height, :width]
