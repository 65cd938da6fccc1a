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

"""The operations of :mod:`scripts.networks.plain_ops` as Triton kernels, each one pass over memory.

After each convolution AENet adds a bias or another feature map, multiplies by a gate that varies from cell to cell,
shifts and cuts off below zero. PyTorch makes a pass over the feature map for each of these, which takes twice as long
as the convolutions. Here one kernel averages over cells, for the gate, and another does all the rest. Feature maps are
in channels-last memory, sums in single precision. ``torch.compile`` finds the same kernels, in half a minute a process;
these take seconds, once a machine.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from scripts.networks.plain_ops import Ops

_LARGEST_TILE = 8192  # elements that a program holds in registers


@triton.jit
def _cell_means(
    y,
    bias,
    skip,
    means,
    height,
    width,
    channels,
    per_skip,
    cell: tl.constexpr,
    has_skip: tl.constexpr,
    block: tl.constexpr,
):
    """Mean of y + bias (+ skip) over each cell of cell x cell pixels; the last ones may reach over the end."""
    rows = tl.cdiv(height, cell)
    columns = tl.cdiv(width, cell)
    program = tl.program_id(0)
    n = program // (rows * columns)
    row = program // columns % rows
    column = program % columns
    c = tl.program_id(1) * block + tl.arange(0, block)
    inside = c < channels
    across = column * cell + tl.arange(0, cell)
    total = tl.zeros((cell, block), tl.float32)
    for down in range(cell):
        i = row * cell + down
        mask = (across < width)[:, None] & inside[None, :] & (i < height)
        at = (n.to(tl.int64) * height * width + i * width + across)[:, None] * channels + c[None, :]
        total += tl.load(y + at, mask=mask, other=0).to(tl.float32)
        if has_skip:
            at = ((n // per_skip).to(tl.int64) * height * width + i * width + across)[:, None] * channels + c[None, :]
            total += tl.load(skip + at, mask=mask, other=0).to(tl.float32)
    pixels = tl.minimum(cell, height - row * cell) * tl.minimum(cell, width - column * cell)
    mean = tl.sum(total, 0) / pixels + tl.load(bias + c, mask=inside, other=0).to(tl.float32)
    tl.store(means + program.to(tl.int64) * channels + c, mean.to(means.dtype.element_ty), mask=inside)


@triton.jit
def _gated(
    y,
    bias,
    skip,
    logits,
    scale_and_shift,
    residual,
    out,
    height,
    width,
    channels,
    gates,
    per_y,
    per_skip,
    per_logits,
    slope,
    half: tl.constexpr,
    has_skip: tl.constexpr,
    has_film: tl.constexpr,
    has_residual: tl.constexpr,
    block: tl.constexpr,
):
    """leaky((y + bias + skip) * gate * (1 + scale) + shift + residual), the gate bilinear between centers of cells."""
    rows = tl.cdiv(height, half)
    columns = tl.cdiv(width, half)
    program = tl.program_id(0)
    n = program // (rows * columns)
    row = program // columns % rows
    column = program % columns
    c = tl.program_id(1) * block + tl.arange(0, block)
    inside = c < channels
    gate = c % gates

    # the quarter of a cell that this program works on lies between the centers of the same four cells
    last_row = tl.cdiv(height, 2 * half) - 1
    last_column = tl.cdiv(width, 2 * half) - 1
    r0 = (row + 1) // 2 - 1
    s0 = (column + 1) // 2 - 1
    of_n = (n // per_logits) * (last_row + 1)
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
    x = tl.load(y + (n // per_y) * plane + pixel, mask=inside, other=0).to(tl.float32)
    x += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)[None, :]
    if has_skip:
        x += tl.load(skip + (n // per_skip) * plane + pixel, mask=inside, other=0).to(tl.float32)
    x *= gain
    if has_film:
        film = scale_and_shift + n * 2 * gates + gate
        x *= 1 + tl.load(film, mask=c < channels, other=0).to(tl.float32)[None, :]
        x += tl.load(film + gates, mask=c < channels, other=0).to(tl.float32)[None, :]
    if has_residual:
        x += tl.load(residual + n * plane + pixel, mask=inside, other=0).to(tl.float32)
    x = tl.where(x > 0, x, slope * x)
    tl.store(out + n * plane + pixel, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _biased(y, bias, skip, elements, image, channels, per_skip, slope, has_skip: tl.constexpr, block: tl.constexpr):
    """leaky(y + bias + skip), in the place of y."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < elements
    x = tl.load(y + at, mask=inside).to(tl.float32) + tl.load(bias + at % channels, mask=inside).to(tl.float32)
    if has_skip:
        x += tl.load(skip + at // image // per_skip * image + at % image, mask=inside).to(tl.float32)
    x = tl.where(x > 0, x, slope * x)
    tl.store(y + at, x.to(y.dtype.element_ty), mask=inside)


def cell_means(y: torch.Tensor, bias: torch.Tensor, cell: int, skip: torch.Tensor | None = None) -> torch.Tensor:
    """As :func:`scripts.networks.plain_ops.cell_means`; ``cell`` is a power of 2."""
    count, channels, height, width = y.shape
    means = y.new_empty((count, triton.cdiv(height, cell), triton.cdiv(width, cell), channels))
    block = min(triton.next_power_of_2(channels), max(32, _LARGEST_TILE // 2 // cell))
    grid = (count * means.shape[1] * means.shape[2], triton.cdiv(channels, block))
    per_skip = 1 if skip is None else count // skip.shape[0]
    _cell_means[grid](
        y, bias, y if skip is None else skip, means, height, width, channels, per_skip, cell, skip is not None, block
    )
    return means


def gated(
    y: torch.Tensor,
    bias: torch.Tensor,
    logits: torch.Tensor,
    cell: int,
    slope: float,
    skip: torch.Tensor | None = None,
    scale_and_shift: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """As :func:`scripts.networks.plain_ops.gated`; ``cell`` is a power of 2."""
    _, channels, height, width = y.shape
    count = y.shape[0] if scale_and_shift is None else scale_and_shift.shape[0]
    out = (
        torch.empty_like(y)
        if count == y.shape[0]
        else y.new_empty((count, channels, height, width)).contiguous(memory_format=torch.channels_last)
    )
    half = cell // 2
    block = min(triton.next_power_of_2(channels), max(32, _LARGEST_TILE // half**2))
    grid = (count * triton.cdiv(height, half) * triton.cdiv(width, half), triton.cdiv(channels, block))
    _gated[grid](
        y,
        bias,
        y if skip is None else skip,
        logits,
        logits if scale_and_shift is None else scale_and_shift,
        y if residual is None else residual,
        out,
        height,
        width,
        channels,
        logits.shape[-1],
        count // y.shape[0],
        1 if skip is None else count // skip.shape[0],
        count // logits.shape[0],
        slope,
        half,
        skip is not None,
        scale_and_shift is not None,
        residual is not None,
        block,
    )
    return out


def biased(y: torch.Tensor, bias: torch.Tensor, slope: float, skip: torch.Tensor | None = None) -> torch.Tensor:
    """As :func:`scripts.networks.plain_ops.biased`, in the place of ``y``."""
    block = 2048
    per_skip = 1 if skip is None else y.shape[0] // skip.shape[0]
    _biased[(triton.cdiv(y.numel(), block),)](
        y,
        bias,
        y if skip is None else skip,
        y.numel(),
        y[0].numel(),
        y.shape[1],
        per_skip,
        slope,
        skip is not None,
        block,
    )
    return y


TRITON = Ops(cell_means, gated, biased)
