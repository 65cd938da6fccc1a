# SPDX-License-Identifier: Apache-2.0
"""What a run costs in time and memory, from trials of a few seconds with noise on the device of the run."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from torch import nn

from scripts import lattice
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.restoration import margins
from scripts.networks.cell_average import POOL_CELL
from scripts.reconstruction import axial_inferer as reconstruction
from scripts.reconstruction.predictor import TTAPredictor
from scripts.training.checkpoint import read_checkpoint
from scripts.training.step import TrainingStep
from scripts.transforms.scale_intensity import ENOUGH_VOXELS
from scripts.volumes.background import WAITING
from scripts.volumes.batches import check_memory as check_room_for
from scripts.volumes.factor import factor_of
from scripts.volumes.reading import Header
from scripts.volumes.writing import stored_dtype

_ENOUGH_SECONDS = 0.4  # a trial is repeated until it has taken as long, and then no larger one follows
_TOO_LONG = 5.0  # a trial that takes longer is the only one: the next would take four times as long
_SMALLEST_TRIAL = 64  # voxels a side
# Bytes of memory at the peak of stage II per input voxel: the copies in single precision that reading, scaling,
# collating and saving hold at the same time, counted in the code.
_PER_INPUT_VOXEL = 16
_PER_RESTORED_VOXEL = 36  # two orientations, their mean and their difference
_PER_TRAINING_VOXEL = 24  # of a volume that is cached for training and for validation


class Cost(NamedTuple):
    """What a run needs.

    Attributes:
        work: what there is to do, in words.
        seconds: computing time, without start and files.
        memory: bytes of main memory.
        gpu_memory: bytes of the GPU's memory, 0 without one.
    """

    work: str
    seconds: float
    memory: float
    gpu_memory: float


class _Trial(NamedTuple):
    """What a piece of work takes, by trials of two sizes.

    Attributes:
        call: seconds for each call, however little there is to do. A network of many small operations takes most of its time so.
        unit: seconds for each unit of size.
        memory, gpu_memory: bytes that the larger trial took.
        units: size of the larger trial.
    """

    call: float
    unit: float
    memory: float
    gpu_memory: float
    units: float

    def seconds(self, calls: float, units: float) -> float:
        """Time for so many calls with so many units of size in all."""
        return calls * self.call + units * self.unit


class ReconstructionCost:
    """Cost of inserting slices, from a trial with a small volume of noise.

    Args:
        network: of stage III, on the device.
        inferer: as in the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: reconstruction.AxialInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = copy.copy(inferer)
        self.inferer.progress = False
        self.device = device

    def check(self, header: Header) -> None:
        """A volume of the header's shape can always be reconstructed: tiles keep the memory small."""

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to a volume of the header's shape."""
        x, y, slices = header.shape
        factor = factor_of(header, self.inferer.factor)
        self.inferer.factor = factor
        self.inferer.train_factors = (1, math.inf)  # a warning here would be one too many
        parts = reconstruction.intervals(slices, factor, copy=self.inferer.input_slices == "copy")
        new = sum(len(part.depths) for part in parts)
        of_one_interval = max(len(part.depths) for part in parts)
        side, batch = self.inferer.choose((x, y), of_one_interval, factor, self.network, self.device)
        tiles = [lattice.tiles((0, length), length, side, self.inferer.halo, POOL_CELL) for length in (x, y)]
        widths, heights = ([span.end - span.begin for span in spans] for spans in tiles)
        width, height = max(widths), max(heights)
        number = len(widths) * len(heights)
        # The looks of test-time augmentation are calls of their own. A GPU records them, a CPU is asked for one.
        looks = TTAPredictor.looks if self.inferer.tta else 1
        if self.device.type != "cuda":
            self.inferer.tta = False
        predictor = self.inferer.predictor(self.network, factor, self.device, batch)

        def predict(side: int) -> None:
            windows = torch.rand(predictor.windows, side, side, lattice.INPUT_SLICES, device=self.device)
            predictor(windows, torch.rand(predictor.windows, of_one_interval, device=self.device))

        sides = _sides(min(width, height))
        if self.device.type == "cuda":  # each size is recorded, which takes longer than the work
            sides = sides[-1:]
        trial = _trial(predict, sides, lambda side: side**2, self.device)
        repeated = looks if self.device.type != "cuda" else 1
        groups = [parts[begin : begin + predictor.windows] for begin in range(0, len(parts), predictor.windows)]
        calls = repeated * sum(any(part.depths for part in group) for group in groups)
        seconds = trial.seconds(calls * number, calls * sum(widths) * sum(heights))
        of_a_tile = width * height / trial.units
        work = f"{new} new slices of {x} x {y}"
        if number > 1:
            work += f" in {len(tiles[0])} x {len(tiles[1])} tiles of {width} x {height}"
        if looks > 1:
            work += f", {looks} times over (--tta true)"
        # a sample of the voxels for the intensity scale, two slices, and what waits to be written
        here = 4 * min(math.prod(header.shape), ENOUGH_VOXELS) + 2 * 4 * x * y
        here += (WAITING + 1) * of_one_interval * width * height * stored_dtype(header.dtype).itemsize
        return Cost(work, seconds, _resident() + here + trial.memory * of_a_tile, trial.gpu_memory * of_a_tile)


class RestorationCost:
    """Cost of restoring all XZ and YZ slices, from a trial with a small image of noise.

    Args:
        network: of stage I, on the device.
        inferer: as in the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: PseudoVolumeInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = inferer
        self.device = device

    def check(self, header: Header) -> None:
        """Find out whether the memory suffices for a volume of the header's shape.

        Raises:
            InputError: if not.
        """
        x, y, slices = header.shape
        check_room_for(2 * x * y * lattice.output_size(slices, self.inferer.prior_factor), self.inferer.prior_factor)

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to a volume of the header's shape."""
        x, y, slices = header.shape
        if self.inferer.prior_factor == 1:
            return Cost(
                "nothing to restore, for k is 1", 0, _resident() + _PER_INPUT_VOXEL * math.prod(header.shape), 0
            )
        z = lattice.output_size(slices, self.inferer.prior_factor)
        batch = self.inferer.batch_size

        def restore(side: int) -> None:
            self.inferer.restore(torch.rand(1, 1, side, side, device=self.device), self.network)

        sides = _sides(math.isqrt(max(x, y) * z * batch))
        trial = _trial(restore, sides, lambda side: self._computed(side, side), self.device)
        done = self.inferer.restored_before((x, y))
        left = {"xz": max(0, y - done["xz"]), "yz": max(0, x - done["yz"])}
        seconds = trial.seconds(
            sum(math.ceil(images / batch) for images in left.values()),
            left["xz"] * self._computed(x, z) + left["yz"] * self._computed(y, z),
        )
        of_a_batch = batch * self._computed(max(x, y), z) / trial.units
        work = f"{y} XZ and {x} YZ slices, {len(self.inferer.restore.states) - 1} evaluations of the prior each"
        if any(done.values()):
            work += f" ({sum(done.values())} slices were restored before)"
        here = _PER_INPUT_VOXEL * math.prod(header.shape) + _PER_RESTORED_VOXEL * x * y * z
        return Cost(
            work,
            seconds,
            _resident() + here + trial.memory * of_a_batch,
            trial.gpu_memory * of_a_batch,
        )

    def _computed(self, height: int, width: int) -> int:
        """Pixels that the network sees of an image, those beyond its edges too."""
        top, bottom, left, right = margins(height, width, getattr(self.network, "multiple", 1))
        return (top + height + bottom) * (left + width + right)


class TrainingCost:
    """Cost of training, from a trial of a few steps with a volume of noise.

    Args:
        network: on the device; its weights are changed.
        optimizer: of the network.
        loss: of the training.
        inferer: of the training.
        prepare_batch: of the training.
        cut: the random transforms, which turn {"image": volume} into the items of a batch; None entries are left out.
        device: of the run.
        max_epochs, epoch_length: of the run.
        checkpoint: file of an interrupted run, which need not be there.
        resume_must_match: what the checkpoint must share with the run.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable,
        inferer: Callable,
        prepare_batch: Callable,
        cut: Sequence[Callable | None],
        device: torch.device,
        max_epochs: int,
        epoch_length: int,
        checkpoint: str | Path,
        resume_must_match: Mapping[str, Any],
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.loss = loss
        self.inferer = inferer
        self.prepare_batch = prepare_batch
        self.cut = Compose([transform for transform in cut if transform is not None])
        self.device = device
        self.max_epochs = max_epochs
        self.epoch_length = epoch_length
        self.checkpoint = checkpoint
        self.resume_must_match = resume_must_match

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to the steps that are left.

        Raises:
            InputError: if the volume is too small for the patches, or the checkpoint belongs to another run.
        """
        done = self._epochs_done()
        items = self._cut(header)
        cutting = _seconds(lambda: self._cut(header), self.device)
        engine = SimpleNamespace(
            state=SimpleNamespace(device=self.device),
            non_blocking=False,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=self.loss,
            inferer=self.inferer,
            prepare_batch=self.prepare_batch,
        )
        step = TrainingStep()

        def train(count: int) -> None:
            step(engine, list_data_collate(items[:count]))

        if self.device.type == "cuda":  # as fast as it will be only once it is recorded, which is for one size of batch
            counts = [len(items)]
            for _ in range(step.warmup_steps + 1):
                train(len(items))
        else:
            counts = [2**power for power in range(len(items).bit_length()) if 2**power < len(items)] + [len(items)]
        trial = _trial(train, counts, float, self.device)
        share = len(items) / trial.units
        each = cutting + trial.seconds(1, len(items))
        steps = max(0, self.max_epochs - done) * self.epoch_length
        patch = " x ".join(str(side) for side in items[0]["image"].shape[1:3])
        work = f"{steps} steps of {len(items)} patches of {patch}, {two_digits(each)} s a step"
        if done:
            work += f" (epochs 1 to {done} of {self.max_epochs} were done before)"
        voxels, cuda = math.prod(header.shape), self.device.type == "cuda"
        return Cost(
            work,
            steps * each,
            _resident() + _PER_TRAINING_VOXEL * voxels + trial.memory * share,
            8 * voxels + trial.gpu_memory * share if cuda else 0,
        )

    def check(self, header: Header) -> None:
        """Find out whether patches can be cut out of a volume of the header's shape.

        Raises:
            InputError: if not.
        """
        self._cut(header)

    def _cut(self, header: Header) -> Any:
        """Items of a batch, from a volume of noise."""
        x, y, z = header.shape
        # one plane of noise stands for all: the volume has its true size and takes next to no memory
        noise = torch.rand(1, x, y, 1, device=self.device).expand(1, x, y, z)
        return self.cut({"image": noise})

    def _epochs_done(self) -> int:
        checkpoint = read_checkpoint(self.checkpoint, self.resume_must_match)
        return 0 if checkpoint is None else int(checkpoint["epoch"])


def _sides(largest: int) -> list[int]:
    """Sides of square trials, doubling, two or more."""
    largest = max(POOL_CELL, largest // POOL_CELL * POOL_CELL)
    sides = [min(_SMALLEST_TRIAL, largest // 2)]
    while sides[-1] < largest:
        sides.append(min(2 * sides[-1], largest))
    return sides


def _trial(
    work: Callable[[int], None], sizes: Sequence[int], units: Callable[[int], float], device: torch.device
) -> _Trial:
    """
    Time ``work`` with growing sizes until it takes long enough, and tell by the last two what a call takes and what a unit of size.

    Args:
        work: takes a size.
        sizes: from small to large.
        units: of a size; what the time grows by.
        device: that computes.
    """
    gpu = memory = 0.0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times: list[tuple[float, float]] = []
    for size in sizes:
        memory = max(memory, _peak(lambda: work(size)))  # not timed: memory is taken, libraries choose how to compute
        times.append((units(size), _seconds(lambda: work(size), device)))
        if device.type == "cuda":
            gpu = float(torch.cuda.max_memory_allocated(device))
        if times[-1][1] > (_TOO_LONG if len(times) == 1 else _ENOUGH_SECONDS):
            break
    largest, longest = times[-1]
    call, unit = 0.0, longest / largest
    if len(times) > 1:
        smaller, shorter = times[-2]
        slope = (longest - shorter) / (largest - smaller)
        if 0 <= slope < unit:  # other slopes are noise of the clock
            call, unit = longest - slope * largest, slope
    return _Trial(call, unit, memory, gpu, largest)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Mean time of ``work``, which is repeated where it is short: on a busy machine a moment says little."""
    _wait(device)
    begin, count = time.perf_counter(), 0
    while True:
        work()
        count += 1
        _wait(device)
        seconds = time.perf_counter() - begin
        if seconds >= _ENOUGH_SECONDS:
            return seconds / count


def since_start() -> float:
    """
    Seconds since this process was started: what Python, the libraries and the config took, which a run takes as well.

    Returns:
        0 where the system does not tell.
    """
    status = Path("/proc/self/stat")
    if not status.is_file():
        return 0.0
    started = float(status.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(work: Callable[[], None]) -> float:
    """Bytes of main memory by which this process grows while it works; 0 where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # the high-water mark begins anew
    except OSError:
        work()
        return 0.0
    before = _resident()
    work()
    return max(0.0, _kilobytes(status, "VmHWM") * 1024 - before)


def _resident() -> float:
    """Bytes of main memory of this process."""
    status = Path("/proc/self/status")
    return _kilobytes(status, "VmRSS") * 1024 if status.is_file() else 0.0


def _kilobytes(status: Path, name: str) -> float:
    return next((float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)), 0.0)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop log records below errors."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def two_digits(value: float) -> str:
    """A number with two significant digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1g}" if value < 0.1 else f"{value:.1f}".removesuffix(".0")
