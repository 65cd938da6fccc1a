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

"""How large a tile fits into the memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scripts import lattice
from scripts.networks.cell_average import POOL_CELL
from scripts.reconstruction.predictor import Predictor, TTAPredictor

_CPU_TILE = 512  # more does not make a CPU faster
# Slices decoded at once: a large tile with few of them wastes less than a small one with many.
_DEPTH_BATCHES = (16, 8, 4)
# Pixels decoded at once: with more, feature maps have over 2^31 elements, and a GPU is busy with far fewer.
_MOST_PIXELS = 2**25
_TRIAL_TILE = 256  # side of the tile that tells how much memory a pixel takes
_SHARE_OF_FREE = 0.5  # of the GPU's memory: algorithms of convolutions take more or less of it from size to size


def choose_tile(
    plane: tuple[int, int],
    new_slices: int,
    tile: int | None,
    depth_batch: int | None,
    halo: int,
    device: torch.device,
    make_predictor: Callable[[int], Predictor | TTAPredictor],
) -> tuple[int, int]:
    """Side of a tile and depth batch: those given, or what the free memory of a GPU holds according to a trial with a
    small tile.

    Args:
        plane: sides (x, y) of the volume.
        new_slices: those of an interval.
        tile, depth_batch: where they are given.
        halo: of a tile.
        device: that computes.
        make_predictor: makes the predictor of a depth batch.
    """
    batches = _DEPTH_BATCHES if depth_batch is None else (depth_batch,)
    if device.type != "cuda" or (tile is not None and depth_batch is not None):
        return tile or _CPU_TILE, batches[0]
    whole = lattice.padded_size(max(plane), POOL_CELL)
    wanted = whole if tile is None else min(whole, tile)
    side, batch = wanted, batches[0]
    for batch in batches:
        trial = min(wanted, _TRIAL_TILE)
        predictor = make_predictor(batch)
        pixels = _MOST_PIXELS / min(batch, new_slices) / predictor.windows
        used = predictor.recordings * _memory_of(predictor, trial, new_slices)
        del predictor
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        pixels = min(pixels, _SHARE_OF_FREE * free / (used / trial**2))
        side = int(math.sqrt(pixels)) // POOL_CELL * POOL_CELL
        if side >= wanted:
            break
    else:
        side -= POOL_CELL  # room for what tiles may be larger
    return tile or max(lattice.smallest_tile(halo, POOL_CELL), min(side, wanted)), batch


def _memory_of(predictor: Predictor | TTAPredictor, side: int, new_slices: int) -> float:
    """Bytes of the GPU that a batch of windows of a small tile takes at its peak."""
    device = predictor.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    windows = torch.zeros(predictor.windows, side, side, lattice.INPUT_SLICES, device=device)
    predictor(windows, torch.full((predictor.windows, new_slices), 0.5, device=device))
    return max(1.0, float(torch.cuda.max_memory_allocated(device) - before))
