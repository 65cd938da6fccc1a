# SPDX-License-Identifier: Apache-2.0
"""AENet for use on CUDA: what lies between two convolutions is one pass over memory.

After each convolution AENet adds a bias or another feature map, multiplies by a gate that varies from cell to cell, shifts and cuts
off below zero. PyTorch makes a pass over the feature map of each of these, which takes twice as long as the convolutions. Here two
Triton kernels do it: one averages over cells, for the gate; the other does all the rest. The sums are in single precision; the feature maps
are bfloat16 in channels-last memory. ``torch.compile`` finds the same kernels, in half a minute a process; these take seconds, once a machine.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import nn

from scripts.networks.aenet import AENet, BottomStage, ChannelGate, DecoderStage, OutputStage, ResidualBlock
from scripts.networks.plane_conv import PLANES, fold_planes

_LARGEST_TILE = 8192  # elements that a program holds in registers


@triton.jit
def _cell_means(
    y,
    bias,
    before,
    means,
    height,
    width,
    channels,
    share,
    cell: tl.constexpr,
    has_before: tl.constexpr,
    block: tl.constexpr,
):
    """Mean of y + bias (+ before) over each cell of cell x cell pixels; the last ones may reach over the end."""
    rows = tl.cdiv(height, cell)
    columns = tl.cdiv(width, cell)
    place = tl.program_id(0)
    n = place // (rows * columns)
    row = place // columns % rows
    column = place % columns
    c = tl.program_id(1) * block + tl.arange(0, block)
    inside = c < channels
    across = column * cell + tl.arange(0, cell)
    total = tl.zeros((cell, block), tl.float32)
    for down in range(cell):
        i = row * cell + down
        there = (across < width)[:, None] & inside[None, :] & (i < height)
        at = (n.to(tl.int64) * height * width + i * width + across)[:, None] * channels + c[None, :]
        total += tl.load(y + at, mask=there, other=0).to(tl.float32)
        if has_before:
            at = ((n // share).to(tl.int64) * height * width + i * width + across)[:, None] * channels + c[None, :]
            total += tl.load(before + at, mask=there, other=0).to(tl.float32)
    pixels = tl.minimum(cell, height - row * cell) * tl.minimum(cell, width - column * cell)
    mean = tl.sum(total, 0) / pixels + tl.load(bias + c, mask=inside, other=0).to(tl.float32)
    tl.store(means + place.to(tl.int64) * channels + c, mean.to(means.dtype.element_ty), mask=inside)


@triton.jit
def _gated(
    y,
    bias,
    before,
    logits,
    scale_and_shift,
    after,
    out,
    height,
    width,
    channels,
    gates,
    share_y,
    share_before,
    share_logits,
    slope,
    half: tl.constexpr,
    has_before: tl.constexpr,
    has_film: tl.constexpr,
    has_after: tl.constexpr,
    block: tl.constexpr,
):
    """leaky((y + bias + before) * gate * (1 + scale) + shift + after); between the centres of cells the gate is bilinear."""
    rows = tl.cdiv(height, half)
    columns = tl.cdiv(width, half)
    place = tl.program_id(0)
    n = place // (rows * columns)
    row = place // columns % rows
    column = place % columns
    c = tl.program_id(1) * block + tl.arange(0, block)
    inside = c < channels
    gate = c % gates

    # the quarter of a cell that this program works on lies between the centres of the same four cells
    last_row = tl.cdiv(height, 2 * half) - 1
    last_column = tl.cdiv(width, 2 * half) - 1
    r0 = (row + 1) // 2 - 1
    s0 = (column + 1) // 2 - 1
    of_n = (n // share_logits) * (last_row + 1)
    top = (of_n + tl.maximum(r0, 0)) * (last_column + 1)
    bottom = (of_n + tl.minimum(r0 + 1, last_row)) * (last_column + 1)
    left = tl.maximum(s0, 0)
    right = tl.minimum(s0 + 1, last_column)
    g00 = tl.sigmoid(tl.load(logits + (top + left) * gates + gate, mask=inside, other=0).to(tl.float32))
    g01 = tl.sigmoid(tl.load(logits + (top + right) * gates + gate, mask=inside, other=0).to(tl.float32))
    g10 = tl.sigmoid(tl.load(logits + (bottom + left) * gates + gate, mask=inside, other=0).to(tl.float32))
    g11 = tl.sigmoid(tl.load(logits + (bottom + right) * gates + gate, mask=inside, other=0).to(tl.float32))

    pixel = tl.arange(0, half * half)
    i = row * half + pixel // half
    j = column * half + pixel % half
    down = ((i + 0.5) / (2 * half) - 0.5 - r0)[:, None]
    across = ((j + 0.5) / (2 * half) - 0.5 - s0)[:, None]
    upper = g00[None, :] * (1 - across) + g01[None, :] * across
    lower = g10[None, :] * (1 - across) + g11[None, :] * across
    gain = upper * (1 - down) + lower * down

    inside = inside[None, :] & ((i < height) & (j < width))[:, None]
    pixel = (i * width + j)[:, None] * channels + c[None, :]
    plane = height.to(tl.int64) * width * channels
    x = tl.load(y + (n // share_y) * plane + pixel, mask=inside, other=0).to(tl.float32)
    x += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)[None, :]
    if has_before:
        x += tl.load(before + (n // share_before) * plane + pixel, mask=inside, other=0).to(tl.float32)
    x *= gain
    if has_film:
        film = scale_and_shift + n * 2 * gates + gate
        x *= 1 + tl.load(film, mask=c < channels, other=0).to(tl.float32)[None, :]
        x += tl.load(film + gates, mask=c < channels, other=0).to(tl.float32)[None, :]
    if has_after:
        x += tl.load(after + n * plane + pixel, mask=inside, other=0).to(tl.float32)
    x = tl.where(x > 0, x, slope * x)
    tl.store(out + n * plane + pixel, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _biased(y, bias, before, elements, image, channels, share, slope, has_before: tl.constexpr, block: tl.constexpr):
    """leaky(y + bias + before), in the place of y."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < elements
    x = tl.load(y + at, mask=inside).to(tl.float32) + tl.load(bias + at % channels, mask=inside).to(tl.float32)
    if has_before:
        x += tl.load(before + at // image // share * image + at % image, mask=inside).to(tl.float32)
    x = tl.where(x > 0, x, slope * x)
    tl.store(y + at, x.to(y.dtype.element_ty), mask=inside)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def cell_means(y: torch.Tensor, bias: torch.Tensor, cell: int, before: torch.Tensor | None = None) -> torch.Tensor:
    """Means of ``y`` (N, C, H, W) + ``bias`` (C,) + ``before`` (B, C, H, W), B dividing N, over cells: (N, h, w, C)."""
    count, channels, height, width = y.shape
    means = y.new_empty((count, triton.cdiv(height, cell), triton.cdiv(width, cell), channels))
    block = min(triton.next_power_of_2(channels), max(32, _LARGEST_TILE // 2 // cell))
    grid = (count * means.shape[1] * means.shape[2], triton.cdiv(channels, block))
    share = 1 if before is None else count // before.shape[0]
    _cell_means[grid](
        y, bias, y if before is None else before, means, height, width, channels, share, cell, before is not None, block
    )
    return means


def gated(
    y: torch.Tensor,
    bias: torch.Tensor,
    logits: torch.Tensor,
    cell: int,
    slope: float,
    before: torch.Tensor | None = None,
    scale_and_shift: torch.Tensor | None = None,
    after: torch.Tensor | None = None,
) -> torch.Tensor:
    """leaky((y + bias + before) * sigmoid(logits) * (1 + scale) + shift + after).

    Args:
        y: (A, 4 C, H, W).
        bias: (4 C,).
        logits: of the gates of cells, (B, ceil(H / cell), ceil(W / cell), C).
        cell: side of a cell in pixels, even.
        slope: of the leaky rectifier below zero.
        before: (B', 4 C, H, W).
        scale_and_shift: (N, 2 C). N is a multiple of A, B and B'; without it N is A.
        after: (N, 4 C, H, W).

    Returns:
        (N, 4 C, H, W) in the type of ``y``.
    """
    _, channels, height, width = y.shape
    count = y.shape[0] if scale_and_shift is None else scale_and_shift.shape[0]
    out = torch.empty_like(y) if count == y.shape[0] else _rows(y.new_empty((count, channels, height, width)))
    half = cell // 2
    block = min(triton.next_power_of_2(channels), max(32, _LARGEST_TILE // half**2))
    grid = (count * triton.cdiv(height, half) * triton.cdiv(width, half), triton.cdiv(channels, block))
    _gated[grid](
        y,
        bias,
        y if before is None else before,
        logits,
        logits if scale_and_shift is None else scale_and_shift,
        y if after is None else after,
        out,
        height,
        width,
        channels,
        logits.shape[-1],
        count // y.shape[0],
        1 if before is None else count // before.shape[0],
        count // logits.shape[0],
        slope,
        half,
        before is not None,
        scale_and_shift is not None,
        after is not None,
        block,
    )
    return out


def biased(y: torch.Tensor, bias: torch.Tensor, slope: float, before: torch.Tensor | None = None) -> torch.Tensor:
    """leaky(y + bias + before) in the place of ``y`` (N, C, H, W); bias (C,), before (B, C, H, W) with B dividing N."""
    block = 2048
    share = 1 if before is None else y.shape[0] // before.shape[0]
    _biased[(triton.cdiv(y.numel(), block),)](
        y,
        bias,
        y if before is None else before,
        y.numel(),
        y[0].numel(),
        y.shape[1],
        share,
        slope,
        before is not None,
        block,
    )
    return y


class _Biasless(nn.Module):
    """A (transposed) convolution without its bias, which the kernel after it adds."""

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

    def __init__(self, gate: ChannelGate) -> None:
        super().__init__()
        assert gate.mix.bias is not None
        self.cell = gate.cell
        self.weight = nn.Parameter(gate.mix.weight.detach().flatten(1).repeat(1, PLANES) / PLANES)
        self.bias = nn.Parameter(gate.mix.bias.detach())

    def forward(self, y: torch.Tensor, bias: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(cell_means(y, bias, self.cell, before), self.weight, self.bias)


class FusedResidualBlock(nn.Module):
    """:class:`~scripts.networks.aenet.ResidualBlock` in two kernels beside its convolutions."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.skip = _Biasless(block.conv1), _Biasless(block.conv2), block.skip
        self.gate = _Gate(block.gate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As :class:`ResidualBlock`."""
        y = self.conv2(biased(self.conv1(x), self.conv1.bias, 0.0))
        logits = self.gate(y, self.conv2.bias)
        return gated(y, self.conv2.bias, logits, self.gate.cell, 0.0, after=_rows(self.skip(x)))


class FusedDecoderStage(nn.Module):
    """:class:`~scripts.networks.aenet.DecoderStage` in two kernels beside its convolution."""

    def __init__(self, stage: DecoderStage) -> None:
        super().__init__()
        self.from_below = _Biasless(stage.from_below)
        self.gate, self.film = _Gate(stage.gate), stage.film

    def forward(self, below: torch.Tensor, from_skip: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """As :class:`DecoderStage`."""
        y, bias = self.from_below(below), self.from_below.bias
        logits = self.gate(y, bias, from_skip)
        film = self.film(condition)
        return gated(y, bias, logits, self.gate.cell, 0.2, before=from_skip, scale_and_shift=film)


class FusedBottomStage(nn.Module):
    """:class:`~scripts.networks.aenet.BottomStage` in two kernels beside its convolution."""

    def __init__(self, stage: BottomStage) -> None:
        super().__init__()
        self.conv = _Biasless(stage.conv)
        self.gate, self.film = _Gate(stage.gate), stage.film

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Convolved features (B, 4 C, H, W) and the gates' logits (B, h, w, C)."""
        y = self.conv(x)
        return [y, self.gate(y, self.conv.bias)]

    def at_depth(self, x: torch.Tensor, gate: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """As :meth:`BottomStage.at_depth`."""
        return gated(x, self.conv.bias, gate, self.gate.cell, 0.2, scale_and_shift=self.film(condition))


class FusedOutputStage(nn.Module):
    """:class:`~scripts.networks.aenet.OutputStage` with a kernel after each convolution."""

    def __init__(self, stage: OutputStage) -> None:
        super().__init__()
        self.stem, self.fuse, self.refine = stage.stem, _Biasless(stage.fuse), _Biasless(stage.refine)
        self.head, self.to_pixels = stage.head, stage.to_pixels

    def forward(self, x: torch.Tensor, stem: torch.Tensor) -> torch.Tensor:
        """As :class:`OutputStage`."""
        x = biased(self.fuse(x), self.fuse.bias, 0.2, stem)
        x = biased(self.refine(x), self.refine.bias, 0.2)
        return self.to_pixels(self.head(x))


_FUSED = {
    ResidualBlock: FusedResidualBlock,
    DecoderStage: FusedDecoderStage,
    BottomStage: FusedBottomStage,
    OutputStage: FusedOutputStage,
}


def fuse(network: AENet) -> AENet:
    """A copy of ``network`` for use on CUDA in bfloat16, folded and fused; called within autocast.

    Args:
        network: on a CUDA device.
    """
    network = fold_planes(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _FUSED:
                setattr(parent, name, _FUSED[type(child)](child))  # type: ignore[index]
    stages: Any = zip(network.from_skip, network.decoder)
    for from_skip, stage in stages:  # a bias that was added once a window is now added on the way
        stage.from_below.bias += from_skip.bias
        from_skip.bias = None
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif isinstance(module, _Gate):
            module.to(torch.bfloat16)
    return network.requires_grad_(False)
