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

"""What lies between AENet's convolutions, in plain PyTorch: the reference for ``triton_kernels.py``.

:class:`Ops` is the interface that both have. Sums are in single precision, whatever the type of the feature maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Ops(NamedTuple):
    """The three operations of a fused AENet; :mod:`scripts.networks.plain_ops` documents their arguments.

    Attributes:
        cell_means: averages for the channel gate.
        gated: bias, gate, FiLM, residual and leaky rectifier.
        biased: bias, addition and leaky rectifier.
    """

    cell_means: Callable[..., torch.Tensor]
    gated: Callable[..., torch.Tensor]
    biased: Callable[..., torch.Tensor]


def cell_means(y: torch.Tensor, bias: torch.Tensor, cell: int, skip: torch.Tensor | None = None) -> torch.Tensor:
    """Means of y + bias + skip over cells; a cell that reaches over the edge averages what there is of it.

    Args:
        y: (N, C, H, W).
        bias: (C,).
        cell: side of a cell in pixels.
        skip: (B, C, H, W), B dividing N: each window's serves N / B neighboring images.

    Returns:
        (N, ceil(H / cell), ceil(W / cell), C) in the type of ``y``.
    """
    x = _sum(y, bias, skip, len(y))
    return F.avg_pool2d(x, cell, ceil_mode=True).permute(0, 2, 3, 1).to(y.dtype)


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
    """leaky((y + bias + skip) * gate * (1 + scale) + shift + residual).

    The gate is sigmoid(logits), bilinear between the centers of cells.

    Args:
        y: (A, 4 C, H, W).
        bias: (4 C,).
        logits: of the gates of cells, (B, ceil(H / cell), ceil(W / cell), C); the four planes share them.
        cell: side of a cell in pixels, even.
        slope: of the leaky rectifier below zero.
        skip: (B', 4 C, H, W).
        scale_and_shift: FiLM, (N, 2 C). N is a multiple of A, B and B'; without it N is A.
        residual: (N, 4 C, H, W).

    Returns:
        (N, 4 C, H, W) in the type of ``y``.
    """
    count = len(y) if scale_and_shift is None else len(scale_and_shift)
    height, width = y.shape[2:]
    gate = torch.sigmoid(_repeated(logits, count)).permute(0, 3, 1, 2)
    size = [cell * cells for cells in gate.shape[2:]]
    gain = F.interpolate(gate, size, mode="bilinear", align_corners=False)[:, None, :, :height, :width]
    planes = [-1, gain.shape[2]]
    x = _sum(y, bias, skip, count).unflatten(1, planes) * gain
    if scale_and_shift is not None:
        scale, shift = scale_and_shift.float()[:, None, :, None, None].chunk(2, 2)
        x = x * (1 + scale) + shift
    if residual is not None:
        x = x + residual.unflatten(1, planes)
    return F.leaky_relu(x.flatten(1, 2), slope).to(y.dtype)


def biased(y: torch.Tensor, bias: torch.Tensor, slope: float, skip: torch.Tensor | None = None) -> torch.Tensor:
    """leaky(y + bias + skip), which may take the place of ``y``.

    Args:
        y: (N, C, H, W).
        bias: (C,).
        slope: of the leaky rectifier below zero.
        skip: (B, C, H, W), B dividing N.

    Returns:
        (N, C, H, W) in the type of ``y``.
    """
    return F.leaky_relu(_sum(y, bias, skip, len(y)), slope).to(y.dtype)


PLAIN = Ops(cell_means, gated, biased)


def _sum(y: torch.Tensor, bias: torch.Tensor, skip: torch.Tensor | None, count: int) -> torch.Tensor:
    """y + bias + skip for ``count`` images, in single precision."""
    x = _repeated(y, count) + bias.float()[:, None, None]
    return x if skip is None else x + _repeated(skip, count)


def _repeated(values: torch.Tensor, count: int) -> torch.Tensor:
    """Each item as often as it takes to make ``count``, in single precision."""
    return values.float().repeat_interleave(count // len(values), 0)
