# SPDX-License-Identifier: Apache-2.0
"""3-D convolutions of a stack of four planes, computed as 2-D convolutions of their channels.

A window has only four planes, so a kernel of three along Z reaches nearly every plane from every other. Written as one 2-D
convolution from 4 C_in to 4 C_out channels the same sums are found by the libraries' fastest code, in channels-last memory. At few
channels that is several times faster on a CPU, although three eighths of the products are with zero.

The planes are folded into the channels: channel p C + c of a tensor (B, 4 C, H, W) is channel c of plane p.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

PLANES = 4


def plane_kernel(weight: torch.Tensor, planes: int = PLANES) -> torch.Tensor:
    """Kernel (A, B, K, h, w), K odd and at most 7, of a convolution along Z -> (4 A, 4 B, h, w) from planes to planes.

    Planes outside the window are zero, as with zero padding.
    """
    reach = planes - 1 - weight.shape[2] // 2
    taps = F.pad(weight, [0, 0, 0, 0, reach, reach])  # tap 3 joins a plane with itself
    plane = torch.arange(planes, device=weight.device)
    tap = plane[None, :] - plane[:, None] + planes - 1
    joined = taps.index_select(2, tap.flatten()).unflatten(2, [planes, planes])
    return joined.permute(2, 0, 3, 1, 4, 5).flatten(2, 3).flatten(0, 1)


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


class PlaneFusion(nn.Conv2d):
    """1 x 1 convolution of all planes into one; its weight (C, 4 C, 1, 1) counts the planes fastest."""

    def __init__(self, channels: int) -> None:
        super().__init__(PLANES * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(B, 4 C, H, W) -> (B, C, H, W)."""
        weight = self.weight.unflatten(1, [self.out_channels, -1]).transpose(1, 2).flatten(1, 2)
        return F.conv2d(x, weight, self.bias)
