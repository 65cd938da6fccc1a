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

"""3-D convolutions of a stack of four planes, computed as 2-D convolutions of their channels.

A window has only four planes, so a kernel of three along Z reaches nearly every plane from every other. Written as one
2-D convolution from 4 C_in to 4 C_out channels the same sums are found by the libraries' fastest code, in channels-last
memory. At few channels that is several times faster, although three eighths of the products are with zero.

The planes are folded into the channels: channel p C + c of a tensor (B, 4 C, H, W) is channel c of plane p. In training
the weights are folded at each step; for use, :func:`fold_planes` folds them once.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

PLANES = 4

Network = TypeVar("Network", bound=nn.Module)


def plane_kernel(weight: torch.Tensor, planes: int = PLANES) -> torch.Tensor:
    """Kernel (A, B, K, h, w), K odd and at most 7, of a convolution along Z -> (4 A, 4 B, h, w) from planes to planes.

    Planes outside the window are zero, as with zero padding. The result is in channels-last memory.
    """
    plane = torch.arange(planes, device=weight.device)
    tap = plane[None, :] - plane[:, None] + weight.shape[2] // 2  # that joins two planes
    joins = (torch.arange(weight.shape[2], device=weight.device)[:, None, None] == tap).to(weight.dtype)
    joined = torch.einsum("abkhw,kpq->pahwqb", [weight, joins])
    return joined.flatten(4, 5).flatten(0, 1).permute(0, 3, 1, 2)


def plane_bias(bias: torch.Tensor | None, planes: int = PLANES) -> torch.Tensor | None:
    """The same bias (C,) for each plane: (4 C,)."""
    return None if bias is None else bias.repeat(planes)


class PlaneConv(nn.Conv3d):
    """``nn.Conv3d`` of kernel (K, h, w), stride (1, s, s) and padding (K // 2, p, p) over four folded planes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 4 C_in, H, W) -> (B, 4 C_out, H', W')."""
        stride, padding = [self.stride[1], self.stride[2]], [int(self.padding[1]), int(self.padding[2])]
        return F.conv2d(x, plane_kernel(self.weight), plane_bias(self.bias), stride, padding)


class PlaneConvTranspose(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` of kernel (3, h, w), stride (1, s, s) and padding (1, p, p) over four folded planes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, 4 C_in, H, W) -> (B, 4 C_out, H', W')."""
        stride, padding = [self.stride[1], self.stride[2]], [int(self.padding[1]), int(self.padding[2])]
        return F.conv_transpose2d(x, plane_kernel(self.weight), plane_bias(self.bias), stride, padding)


def fold_planes(network: Network) -> Network:
    """A copy of ``network`` for use, whose plane convolutions are 2-D convolutions with weights folded once and for
    all."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (PlaneConv, PlaneConvTranspose)):
                setattr(parent, name, _folded(child))
    return network


def _folded(conv: PlaneConv | PlaneConvTranspose) -> nn.Conv2d | nn.ConvTranspose2d:
    kind: Any = nn.Conv2d if isinstance(conv, PlaneConv) else nn.ConvTranspose2d
    sizes = [(int(value[1]), int(value[2])) for value in (conv.kernel_size, conv.stride, conv.padding)]
    channels = PLANES * conv.in_channels, PLANES * conv.out_channels
    folded = kind(*channels, *sizes, bias=conv.bias is not None, device="meta")
    folded.weight = nn.Parameter(plane_kernel(conv.weight.detach()), requires_grad=False)
    bias = plane_bias(conv.bias)
    if bias is not None:
        folded.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return folded
