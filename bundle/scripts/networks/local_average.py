# SPDX-License-Identifier: Apache-2.0
"""Average over a fixed neighbourhood, in place of the whole image that channel attention usually averages over.

A global average makes the result depend on how the image was cut into tiles. Averages over a fixed grid of cells, read off
in between by bilinear interpolation, are the same in every tile whose origin lies on the grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

WINDOW = 32
"""Side of a cell in image pixels. Images and tile origins must be multiples of it."""


def cell_average(x: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean of each cell: (B, C, H, W) -> (B, C, H / cell, W / cell)."""
    return F.avg_pool2d(x, cell)


def spread(cells: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Carry cell values back to the pixels of ``like`` (..., H, W), bilinearly between cell centres."""
    if cells.shape[-1] == 1 and cells.shape[-2] == 1:
        return cells
    return F.interpolate(cells, size=like.shape[-2:], mode="bilinear", align_corners=False)
