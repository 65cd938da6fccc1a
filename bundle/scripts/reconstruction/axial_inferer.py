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

"""Insertion of slices: a stage III network slides along Z, at any real factor (paper Fig. 1d), on the lattice of
``lattice.py``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from scripts import lattice
from scripts.errors import InputError, warn_once
from scripts.lattice import Block, Box
from scripts.networks.cell_average import POOL_CELL
from scripts.networks.finite import finite_output
from scripts.reconstruction.predictor import Predictor, TTAPredictor
from scripts.reconstruction.tile_size import choose_tile
from scripts.volumes.background import Background, to_device, to_host
from scripts.volumes.batches import check_memory, check_volumes, with_grid_of
from scripts.volumes.factor import factor_to
from scripts.volumes.volume_block import COPIED, FACTOR, block_of
from tqdm import tqdm

INPUT_SLICES_CHOICES = ("copy", "predict")
_SURE_HALO = 64  # leaves a fiftieth of a gray level of 8 bits, and 32 up to one

logger = logging.getLogger(__name__)


class AxialInferer(Inferer):
    """Slides a stage III network along Z and inserts slices at any real factor.

    It computes a block: a whole volume, or the part of one that ``meta["block"]`` of the input says. Planes that are
    larger than a tile are computed in tiles with a halo, of which only the core is kept, so that memory depends on the
    tile. What was prepared for a network (folded weights, a recording) is kept for the next block.

    Args:
        factor: how many times finer Z becomes; None makes the axial voxel as small as the lateral one.
        train_factors: smallest and largest factor the network was trained for; others give a warning. Where both are
            the same the network knows no other, and others are an error.
        tile: side of the XY tiles in voxels, halo included; planes up to this size are taken whole. A tile may be up to
            31 voxels larger, so that its pooling cells are those of the plane. None chooses it, from the free memory of
            a GPU. Where the memory does not hold it, it is halved.
        halo: margin around the core of a tile in voxels. With the default no voxel of 8 bits depends on the cut by more
            than a gray level; with less that is not promised.
        depth_batch: slices decoded at once; None chooses it like ``tile``.
        input_slices: "copy" copies the input slices, "predict" has the network estimate them too, at relative depth 0.
        tta: take the mean over all turns, flips and reversals of a window, see
            :class:`scripts.reconstruction.predictor.TTAPredictor`; 16 times the work.
        amp: compute in bfloat16 where torch's autocast finds it safe.
        progress: show a progress bar for each volume or block.
        target_spacing: distance of the slices of the result in the unit of the volume, in place of ``factor``.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        factor: float | None = None,
        train_factors: Sequence[float] = (1, math.inf),
        tile: int | None = None,
        halo: int = _SURE_HALO,
        depth_batch: int | None = None,
        input_slices: str = "copy",
        tta: bool = False,
        amp: bool = False,
        progress: bool = False,
        target_spacing: float | None = None,
    ) -> None:
        super().__init__()
        self.factor = None if factor is None else lattice.check_factor(factor)
        self.target_spacing = target_spacing
        self.train_factors = train_factors
        if tile is not None and not (isinstance(tile, int) and tile > 0):
            raise InputError(f"--tile {tile}: give a whole number of voxels above 0, such as 256")
        if not (isinstance(halo, int) and halo >= 0):
            raise InputError(f"--halo {halo}: give a whole number of voxels from 0 up, such as 64")
        if input_slices not in INPUT_SLICES_CHOICES:
            choices = " or ".join(INPUT_SLICES_CHOICES)
            raise InputError(f"--input_slices {input_slices}: there is no such choice; give {choices}")
        self.tile = tile
        self.halo = halo
        self.depth_batch = depth_batch
        self.input_slices = input_slices
        self.tta = tta
        self.amp = amp
        self.progress = progress
        self._prepared: tuple[Any, Predictor | TTAPredictor] | None = None
        self._sizes: dict[Any, tuple[int, int]] = {}

    def __call__(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:  # type: ignore[override]
        """Insert slices into each channel of each item, on its own.

        Args:
            inputs: volumes (B, C, X, Y, K) of two slices or more, scaled to [0, 1]; or (1, C, X, Y, K), the input of
                the block that ``inputs.meta["block"]`` says.
            network: of stage III, on the device of ``inputs``.

        Returns:
            (B, C, X, Y, Z), float32, with the refined affine of each item if ``inputs`` has them. Of whole volumes it
            is in main memory, for they may be larger than a GPU holds; of a block it is the core, and stays on the
            device.

        Raises:
            InputError: ``inputs`` are no such volumes, the memory does not hold the output or even a small tile, the
                network puts out numbers that are not finite, or no factor is given and the voxel sizes ask for none, or
                for several.
        """
        part = block_of(inputs)
        if part is None:
            check_volumes(inputs)
        elif len(inputs) != 1:
            raise InputError(f"blocks are computed one at a time, not {len(inputs)} in a batch: give a batch_size of 1")
        factor = self.check_trained(self._factor(inputs))
        volumes = torch.Tensor.as_subclass(inputs, torch.Tensor).detach()
        *several, x, y, slices = volumes.shape
        block = lattice.whole((x, y, slices)) if part is None else part
        sizes = [side.stop - side.start for side in block.output(factor)]
        if part is None:
            check_memory(volumes[..., 0, 0, 0].numel() * math.prod(sizes), factor)
        # Slices of the output lie one after the other, as in most files.
        device = inputs.device if part is not None else torch.device("cpu")
        output = torch.empty((*several, *reversed(sizes)), device=device).movedim((-1, -3), (-3, -1))
        bar = tqdm(desc="reconstructing", unit="window", disable=not self.progress)
        with bar, Background() as background, torch.no_grad():
            pairs = list(zip(volumes.flatten(0, 1), output.flatten(0, 1)))
            for done, (volume, result) in enumerate(pairs):
                self._insert(volume.float(), result, block, factor, network, background, bar, len(pairs) - done)
        finite_output(output, f"slices from {block.output(factor)[2].start} on")()
        refined = with_grid_of(output, inputs, factor)
        if isinstance(refined, MetaTensor):
            refined.meta[FACTOR], refined.meta[COPIED] = factor, self.input_slices == "copy"
            if part is not None:
                _move_origin(refined, block, factor)
        return refined

    def tile_and_batch(
        self, shape: tuple[int, int, int], factor: float, network: Any, device: torch.device
    ) -> tuple[int, int]:
        """Side of the tiles and depth batch for a volume: those given, or what the free memory of a GPU holds.

        Args:
            shape: of the input (x, y, slices).
            factor: how many times finer Z becomes.
            network: of stage III, on the device.
            device: that computes.
        """
        device = _numbered(device)
        key = (shape[:2], factor, device)
        if key not in self._sizes:
            most = lattice.most_in_interval(shape[2], factor, self.input_slices == "copy")
            make = partial(self._make_predictor, network, factor, device)
            self._sizes[key] = choose_tile(shape[:2], most, self.tile, self.depth_batch, self.halo, device, make)
        return self._sizes[key]

    def cut_alike(
        self, shape: tuple[int, int, int], factor: float, device: torch.device, tile: int, depth_batch: int
    ) -> None:
        """Use the tiles and the depth batch of an earlier run for a volume, see :meth:`tile_and_batch`."""
        self._sizes[shape[:2], factor, _numbered(device)] = tile, depth_batch

    def warm_up(self, block: Block, factor: float, network: Any, device: torch.device) -> None:
        """Let a GPU choose and record its work on the tiles of a block, which takes half a second, before the block is
        there.

        Args:
            block: that comes first.
            factor, network, device: as of :meth:`tile_and_batch`.
        """
        most = lattice.most_in_interval(block.shape[2], factor, self.input_slices == "copy")
        if device.type != "cuda" or most == 0:
            return
        side, batch = self.tile_and_batch(block.shape, factor, network, device)
        predictor = self._predictor(network, factor, device, batch)
        tile = block.parts(side, self.halo, POOL_CELL)[0]
        sides = tile.x.end - tile.x.begin, tile.y.end - tile.y.begin
        try:
            windows = torch.zeros(predictor.windows, *sides, lattice.INPUT_SLICES, device=device)
            for _ in range(2):  # the second one is recorded
                predictor(windows, torch.full((predictor.windows, most), 0.5, device=device))
        except torch.OutOfMemoryError:  # goes on with smaller tiles when the block is there
            predictor.forget()

    def check_trained(self, factor: float) -> float:
        """Return a factor; warn where the network was trained for others, and raise InputError where it knows a single
        other one.
        """
        smallest, largest = self.train_factors
        if smallest == largest and not math.isclose(factor, smallest, rel_tol=1e-6):
            raise InputError(
                f"--factor {factor:g}: the weights were trained for the factor {smallest:g} alone; give --factor "
                f"{smallest:g}, or "
                "--weights of aenet, which takes any"
            )
        if not smallest <= factor <= largest and smallest != largest:
            warn_once(
                f"factor {factor:g} is outside the range {smallest:g} to {largest:g} that the weights were trained for"
            )
        return factor

    def blocks(
        self,
        shape: tuple[int, int, int],
        factor: float,
        network: Any,
        device: torch.device,
        voxels: int,
        box: Box | None = None,
    ) -> list[Block]:
        """How to cut a volume, or a box of its output, into blocks.

        Args:
            shape, factor, network, device: as of :meth:`tile_and_batch`.
            voxels: of the output of a block, at most, where one interval of a tile is no more.
            box: the part of the output; None for all of it.
        """
        side, batch = self.tile_and_batch(shape, factor, network, device)
        core = lattice.blocks(shape, side, self.halo, POOL_CELL, shape[2], factor, box)[0]
        per_interval = (core.x.end - core.x.begin) * (core.y.end - core.y.begin) * factor
        windows = self._predictor(network, factor, device, batch).windows
        intervals = max(1, int(voxels / per_interval) // windows) * windows
        return lattice.blocks(shape, side, self.halo, POOL_CELL, intervals, factor, box)

    def _factor(self, inputs: torch.Tensor) -> float:
        if self.factor is not None and self.target_spacing is None:
            return self.factor
        affines = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        sizes = [lattice.voxel_size(affine) for affine in affines.reshape(-1, 4, 4).cpu().numpy()]
        if self.target_spacing is None:
            factors = {lattice.isotropic_factor(size) for size in sizes}
        else:
            units = np.ravel(inputs.meta.get("unit", "pixel") if isinstance(inputs, MetaTensor) else "pixel")
            of_items = zip(sizes, np.broadcast_to(units, len(sizes)))
            factors = {factor_to(self.target_spacing, size[2], str(unit), self.factor) for size, unit in of_items}
        if len(factors) > 1:
            raise InputError(
                f"--factor is missing: the items of the batch have voxel sizes that ask for {len(factors)} different "
                "ones, and results of "
                "several sizes are no batch; give one factor, or reconstruct them one by one"
            )
        return factors.pop()

    def _make_predictor(
        self, network: Any, factor: float, device: torch.device, batch: int
    ) -> Predictor | TTAPredictor:
        return (TTAPredictor if self.tta else Predictor)(network, factor, device, batch, self.amp)

    def _predictor(self, network: Any, factor: float, device: torch.device, batch: int) -> Predictor | TTAPredictor:
        """The prepared network, prepared again where anything about it has changed."""
        state = tuple((tensor.data_ptr(), tensor._version) for tensor in network.state_dict(keep_vars=True).values())
        device = _numbered(device)
        key = (id(network), state, factor, device, batch, self.amp, self.tta)
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = None
            self._prepared = key, self._make_predictor(network, factor, device, batch)
        return self._prepared[1]

    def _insert(
        self,
        volume: torch.Tensor,
        output: torch.Tensor,
        block: Block,
        factor: float,
        network: Any,
        background: Background,
        bar: tqdm,
        volumes: int,
    ) -> None:
        """
        Fill the output (X, Y, Z) of a block from its input (X, Y, K), in smaller tiles from where the memory was not
        enough.

        ``volumes`` are still to be done, this one included.
        """
        side, batch = self.tile_and_batch(block.shape, factor, network, volume.device)
        predictor = self._predictor(network, factor, volume.device, batch)
        tiles = [(tile, block.first) for tile in block.parts(side, self.halo, POOL_CELL)]
        cut = len(lattice.whole(block.shape).parts(side, self.halo, POOL_CELL)) > 1
        if cut and lattice.padded_size(self.halo, POOL_CELL) < _SURE_HALO:
            warn_once(
                f"--halo {self.halo}: with less than {_SURE_HALO}, voxels where tiles meet depend on the cut by more "
                "than rounding"
            )
        intervals = block.last - block.first
        bar.total = bar.n + volumes * len(tiles) * intervals
        while tiles:
            tile, begin = tiles[0]
            try:
                for reached in range(begin, block.last, predictor.windows):
                    self._insert_batch(volume, output, block, tile, reached, factor, predictor, background)
                    bar.update(min(predictor.windows, block.last - reached))
                del tiles[0]
                continue
            except torch.OutOfMemoryError:
                pass  # what follows must not run while the exception holds on to tensors of the frames it came through
            side = self._smaller(tile)
            self._sizes[block.shape[:2], factor, volume.device] = side, batch
            predictor.forget()
            tiles = [
                (part, reached if index == 0 else begun)
                for index, (larger, begun) in enumerate(tiles)
                for part in larger.parts(side, self.halo, POOL_CELL)
            ]
            later = (volumes - 1) * len(block.parts(side, self.halo, POOL_CELL)) * intervals
            bar.total = bar.n + sum(block.last - begun for _, begun in tiles) + later

    def _insert_batch(
        self,
        volume: torch.Tensor,
        output: torch.Tensor,
        block: Block,
        tile: Block,
        first: int,
        factor: float,
        predictor: Predictor | TTAPredictor,
        background: Background,
    ) -> None:
        """Fill the core of a tile for one batch of windows, the intervals from ``first`` on."""
        begin = block.input
        here = [slice(at.start - start.start, at.stop - start.start) for at, start in zip(tile.input[:2], begin)]
        region = volume[here[0], here[1]]
        core = [slice(span.core_begin - span.begin, span.core_end - span.begin) for span in (tile.x, tile.y)]
        across = slice(tile.x.core_begin - block.x.core_begin, tile.x.core_end - block.x.core_begin)
        along = slice(tile.y.core_begin - block.y.core_begin, tile.y.core_end - block.y.core_begin)
        kept = block.output(factor)[2]
        origin = kept.start
        copy = self.input_slices == "copy"
        intervals = [
            lattice.interval(number, block.shape[2], factor, copy).within(kept.start, kept.stop)
            for number in range(first, min(first + predictor.windows, block.last))
        ]
        for number, interval in enumerate(intervals, first):
            if interval.copied is not None:
                recorded = region[core[0], core[1], number - begin[2].start]
                _bring(recorded[None], output[across, along, interval.copied - origin :], background)
        most = lattice.most_in_interval(block.shape[2], factor, copy)
        if not any(interval.relative_depths for interval in intervals):
            return
        # Batches of one size are recorded once: what is missing is made up, and left out again below.
        numbers = [
            *range(first, first + len(intervals)),
            *[first + len(intervals) - 1] * (predictor.windows - len(intervals)),
        ]
        windows = torch.tensor([lattice.window(number, block.shape[2]) for number in numbers]) - begin[2].start
        relative_depths = torch.tensor(
            [[*interval.relative_depths, *[0.5] * (most - len(interval.relative_depths))] for interval in intervals]
            + [[0.5] * most] * (predictor.windows - len(intervals))
        )
        device = volume.device
        planes = (
            region[..., to_device(windows.flatten(), device)].unflatten(-1, windows.shape).movedim(2, 0).contiguous()
        )
        slices = predictor(planes, to_device(relative_depths, device))[:, :, core[0], core[1]]
        for interval, new in zip(intervals, slices):
            if interval.relative_depths:
                _bring(
                    new[: len(interval.relative_depths)], output[across, along, interval.first - origin :], background
                )

    def _smaller(self, tile: Block) -> int:
        """Side of the tiles that take the place of one that memory did not hold."""
        sides = tile.x.end - tile.x.begin, tile.y.end - tile.y.begin
        side = max(lattice.smallest_tile(self.halo, POOL_CELL), max(sides) // 2)
        part = tile.parts(side, self.halo, POOL_CELL)[0]
        smaller = part.x.end - part.x.begin, part.y.end - part.y.begin
        what = f"out of memory{{}} with tiles of {sides[0]} x {sides[1]} voxels"
        if smaller == sides:
            raise InputError(f"{what.format(', even')}: free some, or give a smaller --halo (now {self.halo})")
        logger.warning(f"{what.format('')}; going on with {smaller[0]} x {smaller[1]}")
        return side


def _numbered(device: torch.device) -> torch.device:
    """The device as its tensors name it: ``cuda`` is ``cuda:0``, for which nothing is to be prepared once more."""
    return torch.empty(0, device=device).device


def _move_origin(result: MetaTensor, block: Block, factor: float) -> None:
    """Set the origin of the output of a block, which has that of its input."""
    shift = [
        out.start - begin.start * scale for out, begin, scale in zip(block.output(factor), block.input, (1, 1, factor))
    ]
    affine = result.affine.clone()
    step = torch.as_tensor(shift, dtype=affine.dtype, device=affine.device)
    affine[..., :3, 3] += affine[..., :3, :3] @ step
    result.affine = affine


def _bring(slices: torch.Tensor, place: torch.Tensor, background: Background) -> None:
    """Bring slices (D, H, W) to the beginning of their place (H, W, Z) in the output."""
    target = place[..., : len(slices)]
    if target.device == slices.device:
        target.copy_(slices.movedim(0, -1))
    else:
        arrive = to_host(slices)
        background.run(lambda: target.copy_(arrive().movedim(0, -1)))
