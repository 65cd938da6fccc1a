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

"""Average over a fixed neighborhood, in place of the whole image that channel attention usually averages over.

A global average makes the result depend on how the image was cut into tiles. Averages over a fixed grid of cells, read
off in between by bilinear interpolation, are the same in every tile whose origin lies on the grid and which does not
end within a cell, but where the image does. The last cells of an image may reach over its end; they average what there
is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

POOL_CELL = 32
"""Side of a cell in image pixels. Tile origins must be multiples of it."""


def cell_average(x: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean of each cell: (B, C, H, W) -> (B, C, ceil(H / cell), ceil(W / cell)).

    Two matrix products: the gradient of ``F.avg_pool2d`` took a tenth of a training step on CUDA.
    """
    rows, columns = averaging(x.shape[-2], cell, x), averaging(x.shape[-1], cell, x)
    values = torch.matmul(rows, x.permute(0, 2, 3, 1).flatten(2))  # (B, h, W C)
    return torch.matmul(columns, values.unflatten(2, [x.shape[-1], -1])).permute(0, 3, 1, 2)


def averaging(pixels: int, cell: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (ceil(pixels / cell), pixels) that average the pixels of each cell."""
    cells = (pixels + cell - 1) // cell
    place = torch.arange(pixels, device=like.device) // cell
    member = (torch.arange(cells, device=like.device)[:, None] == place).to(torch.float32)
    return (member / member.sum(1, keepdim=True)).to(like.dtype)


def spread(cells: torch.Tensor, like: torch.Tensor, cell: int) -> torch.Tensor:
    """Carry cell values (B, C, h, w) back to the pixels of ``like`` (..., H, W), bilinearly between cell centers.

    Two matrix products in the type of ``cells``: on CUDA, ``F.interpolate`` would leave mixed precision, and its
    gradient alone took a fifth of a training step.
    """
    if cells.shape[-1] == 1 and cells.shape[-2] == 1:
        return cells
    rows = interpolation(cells.shape[-2], like.shape[-2], cell, cells)
    columns = interpolation(cells.shape[-1], like.shape[-1], cell, cells)
    values = torch.matmul(columns, cells.permute(0, 2, 3, 1))  # (B, h, W, C)
    return torch.matmul(rows, values.flatten(2)).unflatten(2, [values.shape[2], -1]).permute(0, 3, 1, 2)


def interpolation(cells: int, pixels: int, cell: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (pixels, cells) of linear interpolation between cell centers: multiples of 1 / 64, exact in bfloat16."""
    identity = torch.eye(cells, device=like.device)[None]
    weights = F.interpolate(identity, size=cells * cell, mode="linear", align_corners=False)[0, :, :pixels]
    return weights.transpose(0, 1).to(like.dtype)
