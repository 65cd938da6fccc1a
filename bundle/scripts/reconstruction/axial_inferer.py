# SPDX-License-Identifier: Apache-2.0
"""Reconstruction of a volume: a stage III network slides along Z and inserts slices at any real factor."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm

from scripts import lattice
from scripts.errors import InputError, warn_once
from scripts.networks.cell_average import POOL_CELL
from scripts.networks.finite import finite_output
from scripts.reconstruction.predictor import Predictor, TTAPredictor
from scripts.transforms.scale_intensity import Intensity, check_percentiles, measure_intensity
from scripts.volumes.background import Background, to_device, to_host
from scripts.volumes.batches import check_memory, check_volumes, with_grid_of
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.claim import Claim
from scripts.volumes.factor import factor_of, why_not_cubic
from scripts.volumes.outputs import check_output, check_space
from scripts.volumes.reading import VolumeSource, open_volume
from scripts.volumes.writing import stored_dtype, tell_written, volume_writer

INPUT_SLICES_CHOICES = ("copy", "predict")

_SURE_HALO = 64  # leaves a fiftieth of a grey level of 8 bits, and 32 up to one
_CPU_TILE = 512  # more does not make a CPU faster
_DEPTH_BATCHES = (
    16,
    8,
    4,
)  # slices decoded at once: a large tile with few of them wastes less than a small one with many
# Pixels decoded at once: with more, feature maps have over 2^31 elements, and a GPU is busy with far fewer.
_MOST_PIXELS = 2**25
_TRIAL_TILE = 256  # side of the tile that tells how much memory a pixel takes
_SHARE_OF_FREE = 0.5  # of the GPU's memory: algorithms of convolutions take more or less of it from size to size
_ON_DEVICE = {"uint8": torch.uint8, "int8": torch.int8, "uint16": torch.uint16, "int16": torch.int16}

logger = logging.getLogger(__name__)


def reconstruct_file(
    volume: str | os.PathLike,
    output: str | os.PathLike,
    network: nn.Module,
    inferer: AxialInferer,
    percentiles: Sequence[float],
    device: torch.device,
    spacing: Sequence[float] | None = None,
    overwrite: bool = False,
    axes: str | None = None,
) -> None:
    """Reconstruct a file into another, with memory that the tile bounds and not the volume.

    The volume is read once to find its intensity scale and what may be wrong with it, before anything is written, and then once for each
    tile, a slice at a time. The output has the dtype and the range of the input; input slices are copied as they are stored.

    Args:
        volume: see :func:`scripts.volumes.reading.open_volume`.
        output: see :func:`scripts.volumes.writing.volume_writer`.
        network: of stage III, on the device.
        inferer: which factor, tiles and slices.
        percentiles: of the intensity scale, see :func:`scripts.transforms.scale_intensity.measure_intensity`.
        device: that computes.
        spacing: voxel size [z, y, x] in place of the file's.
        overwrite: whether an existing output may be replaced.
        axes: of the file in its order, in place of what it says.

    Raises:
        InputError: the volume cannot be used, the output cannot be written, or the memory does not hold even a small tile.
    """
    with ExitStack() as opened:
        opened.enter_context(Claim(output))
        check_output(output, overwrite, inputs=[volume])
        check_percentiles(*percentiles)
        source = opened.enter_context(open_volume(volume, spacing, axes))
        header = source.header
        factor = inferer.check_trained(factor_of(header, inferer.factor))
        not_cubic = why_not_cubic(header, factor)
        if not_cubic is not None:
            warn_once(not_cubic)
        x, y, slices = header.shape
        shape = (x, y, lattice.output_size(slices, factor))
        check_space(output, shape, header.dtype, factor)
        planes = tqdm(
            source.checked_slices(), "reading", slices, leave=False, unit="slice", disable=not inferer.progress
        )
        intensity = measure_intensity(planes, header.shape, *percentiles)
        affine = lattice.refined_affine(header.affine, factor)
        network.eval()
        with volume_writer(output, shape, header.dtype, affine, header.unit, overwrite) as writer:
            inferer.stream(source, writer, intensity, factor, network, torch.device(device))
    tell_written(output, shape, affine, header.unit)


class AxialInferer(Inferer):
    """Slides a stage III network along Z and inserts slices at any real factor (paper Fig. 1d), on the lattice of ``lattice.py``.

    Planes are computed in tiles with a margin, of which only the core is kept (``lattice.tiles``), one tile after the other through
    all of Z: memory depends on the tile and not on the volume.

    Args:
        factor: how many times finer Z becomes; None makes the axial voxel as small as the lateral one.
        train_factors: smallest and largest factor the network was trained for; others give a warning. Where both are the same the network
            knows no other, and others are an error.
        tile: side of the XY tiles in voxels, margins included; planes up to this size are taken whole. A tile may be up to 31 voxels
            larger, so that its cells of averages are those of the plane. None chooses it, from the free memory of a GPU. Where the
            memory does not hold it, it is halved.
        halo: margin around the core of a tile in voxels. With the default no voxel of 8 bits depends on the cut by more than a grey
            level; with less that is not promised.
        depth_batch: slices decoded at once; None chooses it like ``tile``.
        input_slices: "copy" copies the input slices, "predict" has the network estimate them too, at depth 0.
        tta: take the mean over all turns, flips and reversals of a window, see :class:`scripts.reconstruction.predictor.TTAPredictor`; 16 times the
            work.
        amp: compute in bfloat16 where torch's autocast finds it safe.
        progress: show a progress bar.
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
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.factor = None if factor is None else lattice.check_factor(factor)
        self.train_factors = train_factors
        if tile is not None and not (isinstance(tile, int) and tile > 0):
            raise InputError(f"--tile {tile}: give a whole number of voxels above 0, such as 256")
        if not (isinstance(halo, int) and halo >= 0):
            raise InputError(f"--halo {halo}: give a whole number of voxels from 0 up, such as 64")
        if input_slices not in INPUT_SLICES_CHOICES:
            raise InputError(
                f"--input_slices {input_slices}: there is no such choice; give {' or '.join(INPUT_SLICES_CHOICES)}"
            )
        self.tile = tile
        self.halo = halo
        self.depth_batch = depth_batch
        self.input_slices = input_slices
        self.tta = tta
        self.amp = amp
        self.progress = progress

    def __call__(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:  # type: ignore[override]
        """Insert slices into each channel of each item, on its own.

        Args:
            inputs: volumes (B, C, X, Y, K) of two slices or more, scaled to [0, 1].
            network: of stage III, on the device of ``inputs``.

        Returns:
            (B, C, X, Y, Z) on the CPU, float32, with the refined affine of each item if ``inputs`` has them.

        Raises:
            InputError: ``inputs`` are no such volumes, the memory does not hold the output or even a small tile, or no factor is given and
                the voxel sizes ask for none, or for several.
        """
        check_volumes(inputs)
        factor = self.check_trained(self._factor(inputs))
        volumes = torch.Tensor.as_subclass(inputs, torch.Tensor).detach()
        *several, x, y, slices = volumes.shape
        size = lattice.output_size(slices, factor)
        check_memory(volumes[..., 0].numel() * size, factor)
        output = torch.empty((*several, x, y, size))
        with Background() as background:
            ends = [
                _Tensors(volume, result, background)
                for volume, result in zip(volumes.flatten(0, 1), output.flatten(0, 1))
            ]
            self._walk(ends, (x, y, slices), factor, network, inputs.device)
        return with_grid_of(output, inputs, factor)

    def stream(
        self,
        source: VolumeSource,
        writer: BlockWriter,
        intensity: Intensity,
        factor: float,
        network: Any,
        device: torch.device,
    ) -> None:
        """The same from a file to a file.

        Args:
            source: the volume.
            writer: of the output.
            intensity: scale of the volume.
            factor: how many times finer Z becomes.
            network: of stage III, on the device.
            device: that computes.

        Raises:
            InputError: the volume cannot be read, or the memory does not hold even a small tile.
            OSError: the output cannot be written.
        """
        with Background() as background:
            ends = _Files(source, writer, intensity, device, background)
            self._walk([ends], source.header.shape, factor, network, device)

    def choose(
        self, plane: tuple[int, int], depths: int, factor: float, network: Any, device: torch.device
    ) -> tuple[int, int]:
        """Side of a tile and depth batch: those given, or what the free memory of a GPU holds according to a trial with a small tile.

        Args:
            plane: its sides (x, y).
            depths: new slices of an interval.
        """
        batches = _DEPTH_BATCHES if self.depth_batch is None else (self.depth_batch,)
        if device.type != "cuda" or (self.tile is not None and self.depth_batch is not None):
            return self.tile or _CPU_TILE, batches[0]
        whole = lattice.padded_size(max(plane), POOL_CELL)
        wanted = whole if self.tile is None else min(whole, self.tile)
        side, batch = wanted, batches[0]
        for batch in batches:
            trial = min(wanted, _TRIAL_TILE)
            predictor = self.predictor(network, factor, device, batch)
            pixels = _MOST_PIXELS / min(batch, depths) / predictor.windows
            used = predictor.recordings * _memory_of(predictor, trial, depths)
            del predictor
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(device)
            pixels = min(pixels, _SHARE_OF_FREE * free / (used / trial**2))
            side = int(math.sqrt(pixels)) // POOL_CELL * POOL_CELL
            if side >= wanted:
                break
        else:
            side -= POOL_CELL  # room for what tiles may be larger
        return self.tile or max(lattice.smallest_tile(self.halo, POOL_CELL), min(side, wanted)), batch

    def predictor(self, network: Any, factor: float, device: torch.device, batch: int) -> Predictor | TTAPredictor:
        """The network made ready to decode ``batch`` slices of a window at once."""
        kind = TTAPredictor if self.tta else Predictor
        return kind(network, factor, device, batch, self.amp)

    def check_trained(self, factor: float) -> float:
        """Return a factor, or raise InputError where the network knows a single one and this is another."""
        only, largest = self.train_factors
        if only == largest and not math.isclose(factor, only, rel_tol=1e-6):
            raise InputError(
                f"--factor {factor:g}: the weights were trained for the factor {only:g} alone; give --factor {only:g}, or "
                "--weights of aenet, which takes any"
            )
        return factor

    def _factor(self, inputs: torch.Tensor) -> float:
        if self.factor is not None:
            return self.factor
        affines = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        factors = {
            lattice.isotropic_factor(lattice.voxel_size(affine)) for affine in affines.reshape(-1, 4, 4).cpu().numpy()
        }
        if len(factors) > 1:
            raise InputError(
                f"--factor is missing: the items of the batch have voxel sizes that ask for {len(factors)} different ones, and results of "
                "several sizes are no batch; give one factor, or reconstruct them one by one"
            )
        return factors.pop()

    def _walk(
        self, volumes: Sequence[_Ends], shape: tuple[int, int, int], factor: float, network: Any, device: torch.device
    ) -> None:
        """Fill the outputs of volumes of one shape, tile by tile, with smaller ones from where the memory was not enough."""
        if not self.train_factors[0] <= factor <= self.train_factors[1]:
            logger.warning(
                f"factor {factor:g} is outside the range {self.train_factors[0]:g} to {self.train_factors[1]:g} that the weights were trained for"
            )
        x, y, slices = shape
        parts = intervals(slices, factor, copy=self.input_slices == "copy")
        most = max(len(interval.depths) for interval in parts)
        side, batch = self.choose((x, y), most, factor, network, device)
        predictor = self.predictor(network, factor, device, batch)
        if lattice.padded_size(self.halo, POOL_CELL) < _SURE_HALO and len(self._tiles((0, x), (0, y), shape, side)) > 1:
            logger.warning(
                f"--halo {self.halo}: with less than {_SURE_HALO}, voxels where tiles meet depend on the cut by more than rounding"
            )
        tiles = [(ends, tile, 0) for ends in volumes for tile in self._tiles((0, x), (0, y), shape, side)]
        filled = 0
        total = len(volumes) * lattice.output_size(slices, factor)
        bar = tqdm(total=total, desc="reconstructing", unit="slice", disable=not self.progress)
        with bar, torch.no_grad():
            while tiles:
                ends, tile, reached = tiles[0]
                try:
                    for reached, voxels in self._fill(tile, reached, parts, ends, predictor):
                        filled += voxels
                        bar.update(filled // (x * y) - bar.n)
                    del tiles[0]
                    continue
                except torch.OutOfMemoryError:
                    pass  # what follows must not run while the exception holds on to tensors of the frames it came through
                side = self._smaller(tile, shape)
                predictor.forget()
                tiles = [
                    (of, part, reached if index == 0 else begun)
                    for index, (of, whole, begun) in enumerate(tiles)
                    for part in self._tiles(whole.x.core, whole.y.core, shape, side)
                ]

    def _tiles(self, x: tuple[int, int], y: tuple[int, int], shape: tuple[int, int, int], side: int) -> list[_Tile]:
        """The tiles of a part of the plane."""
        return [
            _Tile(along_x, along_y)
            for along_x in lattice.tiles(x, shape[0], side, self.halo, POOL_CELL)
            for along_y in lattice.tiles(y, shape[1], side, self.halo, POOL_CELL)
        ]

    def _smaller(self, tile: _Tile, shape: tuple[int, int, int]) -> int:
        """Side of the tiles that take the place of one that memory did not hold."""
        side = max(lattice.smallest_tile(self.halo, POOL_CELL), max(tile.sides) // 2)
        smaller = self._tiles(tile.x.core, tile.y.core, shape, side)[0]
        what = f"out of memory{{}} with tiles of {tile.sides[0]} x {tile.sides[1]} voxels"
        if smaller.sides == tile.sides:
            raise InputError(f"{what.format(', even')}: free some, or give a smaller --halo (now {self.halo})")
        logger.warning(f"{what.format('')}; going on with {smaller.sides[0]} x {smaller.sides[1]}")
        return side

    def _fill(
        self,
        tile: _Tile,
        first: int,
        intervals: Sequence[Interval],
        ends: _Ends,
        predictor: Predictor | TTAPredictor,
    ) -> Iterator[tuple[int, int]]:
        """Fill a tile's core from an interval on; yields, after each batch, the number of the next interval and how many voxels were filled."""
        x, y = tile.x.core_begin, tile.y.core_begin
        width, height = tile.x.core_end - x, tile.y.core_end - y
        across, along = (slice(span.core_begin - span.begin, span.core_end - span.begin) for span in tile)
        most = max(len(interval.depths) for interval in intervals)
        planes: dict[int, _Plane] = {}
        for begin in range(first, len(intervals), predictor.windows):
            batch = intervals[begin : begin + predictor.windows]
            windows, depths = [], []
            for number, interval in enumerate(batch, begin):
                window = lattice.window(number, len(intervals))
                planes = {z: planes[z] if z in planes else ends.read(tile, z) for z in sorted(set(window))}
                if interval.kept is not None:
                    ends.keep(planes[number].stored[across, along], x, y, interval.kept)
                windows.append(torch.stack([planes[z].scaled for z in window], -1))
                # Batches of one size are recorded once: what is missing is made up, and left out again below.
                depths.append([*interval.depths, *[0.5] * (most - len(interval.depths))])
            if any(interval.depths for interval in batch):
                missing = predictor.windows - len(batch)
                windows, depths = windows + windows[-1:] * missing, depths + depths[-1:] * missing
                at = to_device(torch.tensor(depths), windows[0].device)
                slices = predictor(torch.stack(windows), at)[..., across, along]
                for interval, new in zip(batch, slices):
                    if interval.depths:
                        ends.put(new[: len(interval.depths)], x, y, interval.first)
            filled = sum(len(interval.depths) + (interval.kept is not None) for interval in batch)
            yield begin + len(batch), width * height * filled


def _memory_of(predictor: Predictor | TTAPredictor, side: int, depths: int) -> float:
    """Bytes of the GPU that a batch of windows of a small tile takes at its peak."""
    device = predictor.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    windows = torch.zeros(predictor.windows, side, side, lattice.INPUT_SLICES, device=device)
    predictor(windows, torch.full((predictor.windows, depths), 0.5, device=device))
    return max(1.0, float(torch.cuda.max_memory_allocated(device) - before))


class _Tile(NamedTuple):
    """A tile of the plane."""

    x: lattice.Span
    y: lattice.Span

    @property
    def sides(self) -> tuple[int, int]:
        """Voxels along x and y, margins included."""
        return self.x.end - self.x.begin, self.y.end - self.y.begin


class Interval(NamedTuple):
    """Output slices from one input slice up to the next: index of the one that is a copy, if any, index of the first new one, and
    depths of the new ones."""

    kept: int | None
    first: int
    depths: list[float]


def intervals(slices: int, factor: float, copy: bool) -> list[Interval]:
    """The output slices, by interval; without ``copy`` all of them are new."""
    result = [Interval(None, 0, []) for _ in range(slices)]
    for number, group in groupby(enumerate(lattice.positions(slices, factor)), key=lambda item: item[1].interval):
        indices, places = zip(*group)
        kept = copy and places[0].depth == 0
        depths = [place.depth for place in places[kept:]]
        result[number] = Interval(indices[0] if kept else None, indices[0] + kept, depths)
    return result


class _Plane(NamedTuple):
    """A tile of an input slice (H, W): as it is stored, and on the device in [0, 1]."""

    stored: Any
    scaled: torch.Tensor


class _Ends(Protocol):
    """Where a walk reads and writes."""

    def read(self, tile: _Tile, z: int) -> _Plane:
        """A tile of input slice ``z``."""

    def keep(self, stored: Any, x: int, y: int, z: int) -> None:
        """Copy a part (H, W) of an input slice to its place in output slice ``z``."""

    def put(self, slices: torch.Tensor, x: int, y: int, z: int) -> None:
        """Bring new slices (D, H, W) to their place in the output."""


class _Tensors:
    """From a volume (X, Y, K) on the device to one (X, Y, Z) in main memory, both in [0, 1]."""

    def __init__(self, volume: torch.Tensor, output: torch.Tensor, background: Background) -> None:
        self.volume = volume
        self.output = output
        self.background = background

    def read(self, tile: _Tile, z: int) -> _Plane:
        plane = self.volume[tile.x.begin : tile.x.end, tile.y.begin : tile.y.end, z]
        return _Plane(plane, plane.float())

    def keep(self, stored: torch.Tensor, x: int, y: int, z: int) -> None:
        self.put(stored[None], x, y, z)

    def put(self, slices: torch.Tensor, x: int, y: int, z: int) -> None:
        check, arrive = finite_output(slices, f"slices from {z} on"), to_host(slices)
        depth, height, width = slices.shape
        place = self.output[x : x + height, y : y + width, z : z + depth]

        def keep() -> None:
            check()
            place.copy_(arrive().movedim(0, -1))

        self.background.run(keep)


class _Files:
    """From an open volume to a writer."""

    def __init__(
        self,
        source: VolumeSource,
        writer: BlockWriter,
        intensity: Intensity,
        device: torch.device,
        background: Background,
    ) -> None:
        self.source = source
        self.writer = writer
        self.intensity = intensity
        self.device = device
        self.background = background
        # the GPU sends what the file holds, where it knows the type: a quarter of the bytes for 8 bits
        dtype = stored_dtype(source.header.dtype)
        self.sent = _ON_DEVICE.get(dtype.name, torch.int32 if dtype.kind in "ui" else torch.float32)

    def read(self, tile: _Tile, z: int) -> _Plane:
        stored = np.array(self.source.read(z)[tile.x.begin : tile.x.end, tile.y.begin : tile.y.end])
        values = torch.from_numpy(stored.astype(np.float32, order="C"))
        return _Plane(stored, self.intensity.scale(to_device(values, self.device)))

    def keep(self, stored: np.ndarray, x: int, y: int, z: int) -> None:
        self.background.run(lambda: self.writer.write(stored[..., None], x, y, z))

    def put(self, slices: torch.Tensor, x: int, y: int, z: int) -> None:
        check = finite_output(slices, f"slices from {z} on")
        restored = self.intensity.restore(slices, self.source.header.dtype).to(self.sent)
        arrive = to_host(restored.transpose(1, 2).contiguous())  # in the order of the file

        def write() -> None:
            check()
            self.writer.write(arrive().numpy().transpose(2, 1, 0), x, y, z)

        self.background.run(write)
