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

"""AENet for use: weights folded once, and fused operations (an :class:`Ops`) between the convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scripts.networks.aenet import AENet, BottomStage, ChannelGate, DecoderStage, OutputStage, ResidualBlock
from scripts.networks.plain_ops import Ops
from scripts.networks.plane_conv import PLANES, fold_planes
from torch import nn


class _Biasless(nn.Module):
    """A (transposed) convolution without its bias, which the operation after it adds."""

    bias: torch.Tensor

    def __init__(self, conv: Any) -> None:
        super().__init__()
        bias = torch.zeros(conv.out_channels, device=conv.weight.device) if conv.bias is None else conv.bias.detach()
        self.register_buffer("bias", bias)
        self.conv = conv
        conv.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class _Gate(nn.Module):
    """A channel gate up to its sigmoid, from means of each plane's channels."""

    def __init__(self, gate: ChannelGate, ops: Ops) -> None:
        super().__init__()
        assert gate.mix.bias is not None
        self.cell, self.ops = gate.cell, ops
        self.weight = nn.Parameter(gate.mix.weight.detach().flatten(1).repeat(1, PLANES) / PLANES)
        self.bias = nn.Parameter(gate.mix.bias.detach())

    def forward(self, y: torch.Tensor, bias: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(self.ops.cell_means(y, bias, self.cell, skip), self.weight, self.bias)


class FusedResidualBlock(nn.Module):
    """:class:`~scripts.networks.aenet.ResidualBlock` in three operations beside its convolutions."""

    def __init__(self, block: ResidualBlock, ops: Ops) -> None:
        super().__init__()
        self.conv1, self.conv2, self.skip = _Biasless(block.conv1), _Biasless(block.conv2), block.skip
        self.gate, self.ops = _Gate(block.gate, ops), ops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As :class:`ResidualBlock`."""
        y = self.conv2(self.ops.biased(self.conv1(x), self.conv1.bias, 0.0))
        logits = self.gate(y, self.conv2.bias)
        residual = self.skip(x).contiguous(memory_format=torch.channels_last)
        return self.ops.gated(y, self.conv2.bias, logits, self.gate.cell, 0.0, residual=residual)


class FusedDecoderStage(nn.Module):
    """:class:`~scripts.networks.aenet.DecoderStage` in two operations beside its convolution."""

    def __init__(self, stage: DecoderStage, ops: Ops) -> None:
        super().__init__()
        self.from_below = _Biasless(stage.from_below)
        self.gate, self.film, self.ops = _Gate(stage.gate, ops), stage.film, ops

    def forward(self, below: torch.Tensor, from_skip: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """As :class:`DecoderStage`."""
        y, bias = self.from_below(below), self.from_below.bias
        logits = self.gate(y, bias, from_skip)
        film = self.film(condition)
        return self.ops.gated(y, bias, logits, self.gate.cell, 0.2, skip=from_skip, scale_and_shift=film)


class FusedBottomStage(nn.Module):
    """:class:`~scripts.networks.aenet.BottomStage` in two operations beside its convolution."""

    def __init__(self, stage: BottomStage, ops: Ops) -> None:
        super().__init__()
        self.conv = _Biasless(stage.conv)
        self.gate, self.film, self.ops = _Gate(stage.gate, ops), stage.film, ops

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Convolved features (B, 4 C, H, W) and the gates' logits (B, h, w, C)."""
        y = self.conv(x)
        return [y, self.gate(y, self.conv.bias)]

    def at_depth(self, x: torch.Tensor, gate: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """As :meth:`BottomStage.at_depth`."""
        return self.ops.gated(x, self.conv.bias, gate, self.gate.cell, 0.2, scale_and_shift=self.film(condition))


class FusedOutputStage(nn.Module):
    """:class:`~scripts.networks.aenet.OutputStage` with one operation after each convolution."""

    def __init__(self, stage: OutputStage, ops: Ops) -> None:
        super().__init__()
        self.stem, self.fuse, self.refine = stage.stem, _Biasless(stage.fuse), _Biasless(stage.refine)
        self.head, self.to_pixels, self.ops = stage.head, stage.to_pixels, ops

    def forward(self, x: torch.Tensor, stem: torch.Tensor) -> torch.Tensor:
        """As :class:`OutputStage`."""
        x = self.ops.biased(self.fuse(x), self.fuse.bias, 0.2, stem)
        x = self.ops.biased(self.refine(x), self.refine.bias, 0.2)
        return self.to_pixels(self.head(x))


_FUSED: dict[type[nn.Module], Any] = {
    ResidualBlock: FusedResidualBlock,
    DecoderStage: FusedDecoderStage,
    BottomStage: FusedBottomStage,
    OutputStage: FusedOutputStage,
}


def fuse(network: AENet, ops: Ops) -> AENet:
    """A copy of ``network`` for use, folded and fused, in its own precision and in channels-last memory.

    Args:
        network: of any size, on the device that computes.
        ops: what does the fused operations.
    """
    network = fold_planes(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _FUSED:
                setattr(parent, name, _FUSED[type(child)](child, ops))
    stages: Any = zip(network.from_skip, network.decoder)
    for from_skip, stage in stages:  # a bias that was added once a window is now added on the way
        stage.from_below.bias += from_skip.bias
        from_skip.bias = None
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.requires_grad_(False)


def to_bfloat16(network: AENet) -> AENet:
    """Convert convolutions and gates of a fused network in place, which autocast would do at each call."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, _Gate)):
            module.to(torch.bfloat16)
    return network
