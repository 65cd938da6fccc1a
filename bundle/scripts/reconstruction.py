# SPDX-License-Identifier: Apache-2.0
"""Reconstruction of a volume: a stage III network slides along Z and inserts slices at any real factor."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer, sliding_window_inference
from tqdm import tqdm

from scripts import lattice
from scripts.errors import InputError
from scripts.inferers import autocast, check_memory, with_grid_of
from scripts.networks.local_average import WINDOW as GRID

logger = logging.getLogger(__name__)


class AxialInferer(Inferer):
    """Slides a stage III network along Z and inserts slices at any real factor (paper Fig. 1d), on the lattice of ``lattice.py``.

    Args:
        factor: how many times finer Z becomes; None makes the axial voxel as small as the lateral one.
        gap_range: smallest and largest factor the network was trained for; others give a warning.
        tile: side of the XY tiles in voxels; planes up to this size are taken whole.
        overlap: share of a tile that neighbouring tiles have in common; blended with Gaussian weights.
        depth_batch: slices decoded at once.
        amp: compute in bfloat16 where torch's autocast finds it safe.
        progress: show a progress bar.
    """

    def __init__(
        self,
        factor: float | None = None,
        gap_range: Sequence[float] = (1, math.inf),
        tile: int = 512,
        overlap: float = 0.25,
        depth_batch: int = 16,
        amp: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.factor = None if factor is None else lattice.check_factor(factor)
        self.gap_range = gap_range
        if not (isinstance(tile, int) and tile > 0):
            raise InputError(f"--tile {tile}: give a whole number of voxels above 0, such as 256")
        if not (isinstance(overlap, (int, float)) and 0 <= overlap < 1):
            raise InputError(f"--overlap {overlap}: give a share of a tile from 0 up to below 1, such as 0.25")
        self.tile = tile
        self.overlap = overlap
        self.depth_batch = depth_batch
        self.amp = amp
        self.progress = progress

    def __call__(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:  # type: ignore[override]
        """(1, 1, X, Y, K) in [0, 1] -> (1, 1, X, Y, Z) on the CPU, with the refined affine if ``inputs`` has one."""
        factor = self._factor(inputs)
        if not self.gap_range[0] <= factor <= self.gap_range[1]:
            logger.warning(
                f"factor {factor:g} is outside the range {self.gap_range[0]:g} to {self.gap_range[1]:g} that the weights were trained for"
            )
        volume = torch.Tensor.as_subclass(inputs, torch.Tensor)[0, 0]
        x, y, slices = volume.shape
        check_memory(x * y * lattice.output_size(slices, factor), factor)
        places = lattice.positions(slices, factor)
        output = torch.empty((1, 1, x, y, len(places)))
        bar = tqdm(total=len(places), desc="reconstructing", unit="slice", disable=not self.progress)
        with bar, torch.no_grad():
            for interval in range(slices):
                indices = [j for j, place in enumerate(places) if place.interval == interval]
                new = [j for j in indices if places[j].depth > 0]
                for j in indices:
                    if places[j].depth == 0:
                        output[0, 0, :, :, j] = volume[:, :, interval]
                if new:
                    slab = volume[:, :, lattice.window(interval, slices)]
                    depths = torch.tensor([places[j].depth for j in new], device=inputs.device)
                    predicted = self._between(slab, depths, factor, network)
                    output[0, 0, :, :, new] = predicted.movedim(0, -1).cpu()
                bar.update(len(indices))
        return with_grid_of(output, inputs, factor)

    def _factor(self, inputs: torch.Tensor) -> float:
        if self.factor is not None:
            return self.factor
        affine = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        return lattice.isotropic_factor(lattice.voxel_size(affine.reshape(-1, 4, 4)[0].cpu().numpy()))

    def _between(self, slab: torch.Tensor, depths: torch.Tensor, factor: float, network: Any) -> torch.Tensor:
        """Slab (X, Y, 4), depths (D,) -> slices (D, X, Y)."""
        x, y = slab.shape[:2]
        planes = slab.movedim(-1, 0)[None]
        # Padded to the network's pooling grid, so that the last tile begins on it as well.
        padding = (0, -y % GRID, 0, -x % GRID)
        planes = F.pad(planes, padding, mode="replicate")
        tilings = [lattice.tiling(side, self.tile, self.overlap, GRID) for side in (x, y)]

        def decode_all(tiles: torch.Tensor) -> torch.Tensor:
            with autocast(tiles, self.amp):
                features = network.encode(tiles.movedim(1, -1)[:, None])
                parts = []
                for some in depths.split(self.depth_batch):
                    gap = torch.full_like(some, factor)
                    parts.append(network.decode(features, some, gap).float()[:, 0])
            return torch.cat(parts)[None]

        sides = [tiling.side for tiling in tilings]
        slices = sliding_window_inference(planes, sides, 1, decode_all, overlap=_shares(tilings), mode="gaussian")
        assert isinstance(slices, torch.Tensor)  # one network output, one tensor
        return slices[0, :, :x, :y]


def _shares(tilings: Sequence[lattice.Tiling]) -> list[float]:
    """Overlaps as MONAI wants them, shares of a tile, that give exactly the steps of the tilings."""
    # MONAI truncates side * (1 - overlap): half a voxel keeps the step whole whatever the rounding.
    return [max(0.0, 1 - (step + 0.5) / side) for side, step, _ in tilings]
