# SPDX-License-Identifier: Apache-2.0
"""What a run would do, told on a page by ``run check``: nothing is written, and the only work is a trial of a few seconds."""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from torch import nn

from scripts import inferers, lattice
from scripts.command_line import true_or_false
from scripts.engines import Resume
from scripts.io import Header, check_output, read_header, read_volume, stored_dtype
from scripts.networks.local_average import WINDOW as GRID
from scripts.settings import bundle_root, machine

READ_UP_TO = 2**30
"""A volume of so many bytes (in single precision) or fewer is read to its last voxel; of larger ones only the header."""

# A trial that lasts as long is not repeated with more to do: the next would last four times as long.
_ENOUGH_SECONDS = 0.4
_SMALLEST_TRIAL = 64  # voxels a side
_WIDTH, _TITLE_WIDTH = 112, 12
# Bytes of memory at the peak of a run per input and per output voxel: the copies in single precision that reading, scaling,
# collating and saving hold at the same time, counted in the code; the output's was compared with two runs.
_PER_INPUT_VOXEL, _PER_OUTPUT_VOXEL = 16, 16
_PER_RESTORED_VOXEL = 36  # two orientations, their mean and their difference
_PER_TRAINING_VOXEL = 24  # of a volume that is cached for training and for validation


class Cost(NamedTuple):
    """What a run needs.

    Attributes:
        work: what there is to do, in words.
        seconds: computing time.
        memory: bytes of main memory.
        gpu_memory: bytes of the GPU's memory, 0 without one.
    """

    work: str
    seconds: float
    memory: float
    gpu_memory: float


class _Trial(NamedTuple):
    """A trial: what it took, and how large it was."""

    seconds: float
    memory: float
    gpu_memory: float
    size: int


# ---------------------------------------------------------------------------------------------------- what it costs


class ReconstructionCost:
    """Cost of inserting slices, from a trial with a small volume of noise.

    Args:
        network: of stage III, on the device.
        inferer: as in the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: inferers.AxialInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = copy.copy(inferer)
        self.inferer.progress = False
        self.device = device

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to a volume of the header's shape."""
        x, y, slices = header.shape
        factor = factor_of(header, self.inferer.factor)
        self.inferer.factor = factor
        self.inferer.gap_range = (1, math.inf)  # a warning here would be one too many
        tiles = [lattice.tiling(side, self.inferer.tile, self.inferer.overlap, GRID) for side in (x, y)]
        computed = tiles[0].number * tiles[0].side * tiles[1].number * tiles[1].side
        largest = min(tile.side for tile in tiles)

        def reconstruct(side: int) -> None:
            self.inferer(torch.rand(1, 1, side, side, 2, device=self.device), self.network)

        trial = _largest_trial(reconstruct, _sides(largest), self.device)
        new = [place for place in lattice.positions(slices, factor) if place.depth > 0]
        of_one_interval = max(1, sum(place.interval == 0 for place in new))
        seconds = trial.seconds * computed / trial.size**2 * len(new) / of_one_interval
        of_a_tile = tiles[0].side * tiles[1].side / trial.size**2
        out = x * y * lattice.output_size(slices, factor)
        here = _PER_INPUT_VOXEL * math.prod(header.shape) + _PER_OUTPUT_VOXEL * out
        work = f"{len(new)} new slices of {x} x {y}"
        if tiles[0].number * tiles[1].number > 1:
            work += f" in {tiles[0].number} x {tiles[1].number} tiles of {tiles[0].side} x {tiles[1].side}"
        on_gpu = 4 * math.prod(header.shape) if self.device.type == "cuda" else 0
        return Cost(work, seconds, _resident() + here + trial.memory * of_a_tile, on_gpu + trial.gpu_memory * of_a_tile)


class RestorationCost:
    """Cost of restoring all XZ and YZ slices, from a trial with a small image of noise.

    Args:
        network: of stage I, on the device.
        inferer: as in the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: inferers.PseudoVolumeInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = inferer
        self.device = device

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to a volume of the header's shape."""
        x, y, slices = header.shape
        if self.inferer.upsampling == 1:
            return Cost("nothing to restore, for k is 1", 0, _resident() + 16 * math.prod(header.shape), 0)
        z = lattice.output_size(slices, self.inferer.upsampling)
        batch = self.inferer.batch_size

        def restore(side: int) -> None:
            self.inferer.restore(torch.rand(1, 1, side, side, device=self.device), self.network)

        trial = _largest_trial(restore, _sides(math.isqrt(max(x, y) * z * batch)), self.device)
        done = self._done()
        left = max(0, y - done["xz"]) * x * z + max(0, x - done["yz"]) * y * z
        of_a_batch = batch * max(x, y) * z / trial.size**2
        work = f"{y} XZ and {x} YZ slices, {len(self.inferer.restore.states) - 1} evaluations of the prior each"
        if any(done.values()):
            work += f" ({sum(done.values())} slices were restored before)"
        here = _PER_INPUT_VOXEL * math.prod(header.shape) + _PER_RESTORED_VOXEL * x * y * z
        return Cost(
            work,
            trial.seconds * left / trial.size**2,
            _resident() + here + trial.memory * of_a_batch,
            trial.gpu_memory * of_a_batch,
        )

    def _done(self) -> dict[str, int]:
        """Slices of an interrupted run, by orientation."""
        done = {}
        for name in ("xz", "yz"):
            file = self.inferer.progress_dir / f"{name}.json"
            stored = ConfigParser.load_config_file(file) if file.is_file() else {}
            done[name] = int(stored["planes"]) if stored.get("run") == self.inferer.run_id else 0
        return done


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
        settings: that the checkpoint must have.
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
        settings: Mapping[str, Any],
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
        self.settings = settings

    def measure(self, header: Header) -> Cost:
        """Time a trial and extrapolate to the steps that are left.

        Raises:
            InputError: if the volume is too small for the patches, or the checkpoint belongs to another run.
        """
        done = self._epochs_done()
        x, y, z = header.shape
        # one plane of noise stands for all: the volume has its true size and takes next to no memory
        noise = torch.rand(1, x, y, 1, device=self.device).expand(1, x, y, z)
        begin = time.perf_counter()
        items: Any = self.cut({"image": noise})
        _wait(self.device)
        cutting = time.perf_counter() - begin
        self.network.train()

        def step(count: int) -> None:
            inputs, targets, args, kwargs = self.prepare_batch(list_data_collate(items[:count]), self.device, False)
            self.optimizer.zero_grad()
            self.loss(self.inferer(inputs, self.network, *args, **kwargs), targets).mean().backward()
            self.optimizer.step()

        counts = [2**power for power in range(len(items).bit_length()) if 2**power < len(items)] + [len(items)]
        trial = _largest_trial(step, counts, self.device)
        share = len(items) / trial.size
        each = cutting + trial.seconds * share
        steps = max(0, self.max_epochs - done) * self.epoch_length
        patch = " x ".join(str(side) for side in items[0]["image"].shape[1:3])
        work = f"{steps} steps of {len(items)} patches of {patch}, {_number(each)} s a step"
        if done:
            work += f" (epochs 1 to {done} of {self.max_epochs} were done before)"
        voxels, cuda = math.prod(header.shape), self.device.type == "cuda"
        return Cost(
            work,
            steps * each,
            _resident() + _PER_TRAINING_VOXEL * voxels + trial.memory * share,
            8 * voxels + trial.gpu_memory * share if cuda else 0,
        )

    def _epochs_done(self) -> int:
        engine = Engine(lambda engine, batch: None)
        with _quiet():
            Resume(self.checkpoint, {}, self.settings).load(engine)
        return int(engine.state.epoch)


# ------------------------------------------------------------------------------------------------ the pages themselves


def tell_inference(
    volume: str | Path,
    output: str | Path,
    weights: str | Path,
    gap_range: Sequence[float],
    cost: ReconstructionCost,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str = False,
) -> None:
    """
    Tell what ``inference.yaml`` would do. The weights are already in the network of ``cost``, so they fit.

    Args:
        volume, output, weights, spacing, factor, overwrite: the options.
        gap_range: factors that the weights were trained for.
        cost: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True)
    header = page.tell_input(volume, spacing)
    factor = page.tell_factor(header, factor)
    page.tell_output(header, factor, output, overwrite)
    page.line("weights", f"{weights}: fit the network; trained for factors {gap_range[0]:g} to {gap_range[1]:g}")
    if not gap_range[0] <= factor <= gap_range[1]:
        page.warn(f"the factor {factor:g} is outside the range that the weights were trained for")
    page.tell_cost(cost.measure(header), cost.device)
    page.finish()


def tell_restoration(
    volume: str | Path,
    output: str | Path,
    weights: str | Path,
    upsampling: float,
    cost: RestorationCost,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str = False,
) -> None:
    """
    Tell what ``generate.yaml`` would do. The weights are already in the network of ``cost``, so they fit.

    Args:
        volume, weights, spacing, factor, overwrite: the options.
        output: the pseudo-HR volume.
        upsampling: k.
        cost: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True)
    header = page.tell_input(volume, spacing)
    page.tell_factor(header, factor)
    if upsampling == 1:
        page.line("output", f"{output}: the volume as it is, for k is 1")
        page.warn_if_there(output, overwrite)
    else:
        page.tell_output(header, upsampling, output, overwrite)
        page.line("weights", f"{weights}: fit the network; trained for k = {upsampling:g}")
    page.tell_cost(cost.measure(header), cost.device)
    page.finish()


def tell_training(
    volume: str | Path,
    result: str | Path,
    cost: TrainingCost,
    spacing: Sequence[float] | None = None,
    needs_factor: bool = False,
    factor: float | None = None,
) -> None:
    """
    Tell what ``train_diffusion.yaml`` or ``train.yaml`` would do.

    Args:
        volume, spacing, factor: the options.
        result: weights that are written at the end.
        cost: of the run.
        needs_factor: whether the training depends on the axial factor.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    folder = Path(result).parent
    check_output(folder / "x.tif", overwrite=True)  # whatever its name, whether a file can be written there
    header = page.tell_input(volume, spacing)
    if needs_factor:
        page.tell_factor(header, factor)
    page.line("output", f"{result} (weights), with checkpoint and curves beside it")
    page.line("network", _parameters_of(cost.network))
    if Path(result).is_file():
        page.warn(f"{result} exists and would be replaced")
    page.tell_cost(cost.measure(header), cost.device)
    page.finish()


def tell_stages(
    volume: str | Path,
    output: str | Path,
    workdir: str | Path,
    preset: str,
    stages: Sequence[Mapping[str, Any]],
    config_dir: str | Path,
    upsampling: float,
    device: torch.device,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str = False,
) -> None:
    """
    Tell what ``d2r.yaml`` would do, stage by stage.

    Args:
        volume, output, workdir, preset, spacing, factor, overwrite: the options.
        stages, config_dir: see :func:`scripts.pipeline.run_stages`; each config has a section ``cost``.
        upsampling: k.
        device: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True)
    check_output(Path(workdir) / "x.tif", overwrite=True)  # whatever its name, whether a file can be written there
    header = page.tell_input(volume, spacing)
    factor = page.tell_factor(header, factor)
    page.tell_output(header, factor, output, overwrite)
    begun = "holds a part of this run already" if (Path(workdir) / "run.json").is_file() else "nothing there yet"
    page.line("workdir", f"{workdir}: {begun}")
    page.line("preset", preset)
    costs = []
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title = f"{number} of {len(wanted)}"
        if Path(stage["result"]).is_file():
            page.line(title, f"{stage['title']}: done before ({stage['result']})")
            continue
        # what does not exist yet has the grid of the volume, refined by stage II
        pseudo = stage["options"]["volume"] != volume
        cost, network = _cost_of(stage, config_dir, _refined(header, upsampling) if pseudo else header)
        costs.append(cost)
        page.line(title, f"{stage['title']}: {network}; {cost.work}; {about(cost.seconds)}")
    total = Cost(
        "all that is left",
        sum(cost.seconds for cost in costs),
        max(cost.memory for cost in costs),
        max(cost.gpu_memory for cost in costs),
    )
    page.tell_cost(total, device)
    page.finish()


class Page:
    """Lines of a title and a text, printed as they come; warnings come last."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def line(self, title: str, text: str) -> None:
        """Print a line, wrapped."""
        indent = " " * _TITLE_WIDTH
        first, *others = textwrap.wrap(text, _WIDTH - _TITLE_WIDTH, break_long_words=False, break_on_hyphens=False)
        print(f"{title:<{_TITLE_WIDTH}}{first}", flush=True)
        for other in others:
            print(indent + other, flush=True)

    def warn(self, text: str) -> None:
        """Keep a warning for the end."""
        self.warnings.append(text)

    def tell_input(self, path: str | Path, spacing: Sequence[float] | None) -> Header:
        """Print what the input is; a volume that is not large is read, so that all its faults are found."""
        header = read_header(path, spacing)
        voxels = math.prod(header.shape)
        if 4 * voxels <= READ_UP_TO:
            volume = read_volume(path, spacing)
            values = f"values from {float(volume.min()):g} to {float(volume.max()):g}"
        else:
            values = "values not read"
            self.warn(
                f"{path} is large, so only its header was read; the run itself finds voxels that are NaN or damaged"
            )
        self.line("input", f"{path}: {_size(header.shape)} voxels (x, y, z), {header.dtype}, {values}")
        sizes = lattice.voxel_size(header.affine)
        if spacing is not None:
            source = ", given by --spacing"
        elif header.unit == "pixel" and sizes == (1, 1, 1):
            source = ": the file has no voxel size; --spacing '[z,y,x]' gives it"
        else:
            source = ", from the file"
        self.line("voxel size", f"{_size(sizes)} {header.unit} (x, y, z){source}")
        return header

    def tell_factor(self, header: Header, factor: float | None) -> float:
        """Print the factor and return it."""
        value = factor_of(header, factor)
        source = "given by --factor" if factor is not None else "from the voxel size: Z becomes as fine as XY"
        self.line("factor", f"{value:g}, {source}")
        return value

    def tell_output(self, header: Header, factor: float, path: str | Path, overwrite: bool | str) -> None:
        """Print file, grid and lattice of an output with ``factor`` times finer Z."""
        x, y, slices = header.shape
        z = lattice.output_size(slices, factor)
        inferers.check_memory(x * y * z, factor)
        sizes = lattice.voxel_size(lattice.refined_affine(header.affine, factor))
        dtype = stored_dtype(header.dtype)
        size = x * y * z * dtype.itemsize
        at_most = " or less, compressed" if str(path).lower().endswith(".gz") else ""
        self.line(
            "output",
            f"{path}: {_size((x, y, z))} voxels of {_size(sizes)} {header.unit}, {dtype}, {_bytes(size)}{at_most}",
        )
        places = lattice.positions(slices, factor)
        kept = sum(place.depth == 0 for place in places)
        first, last = (sum(p.interval == i and p.depth > 0 for p in places) for i in (0, slices - 2))
        self.line(
            "slices",
            f"{slices} become {z}: {kept} of the input ({kept / z:.0%}) and {z - kept} new; {first} new in the first "
            f"interval (slices 1 to 2), {last} in the last ({slices - 1} to {slices})",
        )
        self.warn_if_there(path, overwrite)
        free = _free(path)
        if size > free:
            self.warn(f"{path}: needs {_bytes(size)} and only {_bytes(free)} are free there")

    def warn_if_there(self, path: str | Path, overwrite: bool | str) -> None:
        """Warn of an output that exists."""
        replace = true_or_false(overwrite, "overwrite")
        if Path(path).exists():
            self.warn(
                f"{path} exists"
                + (" and would be replaced" if replace else ": the run needs --overwrite true, or another name")
            )

    def tell_cost(self, cost: Cost, device: torch.device) -> None:
        """Print device, memory and time."""
        cuda = torch.device(device).type == "cuda"
        self.line("device", machine() if cuda or not torch.cuda.is_available() else str(device))
        self.line("work", cost.work)
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        text = f"about {_bytes(cost.memory)} of the {_bytes(here)} of this machine"
        if cost.memory > here:
            self.warn("the memory may not be enough; cut the volume")
        if cuda:
            there = torch.cuda.get_device_properties(device).total_memory
            text += f", and about {_bytes(cost.gpu_memory)} of the {_bytes(there)} of the GPU"
            if cost.gpu_memory > there:
                self.warn("the GPU's memory may not be enough; take smaller tiles, patches or batches")
        self.line("memory", text)
        self.line(
            "time",
            f"{about(cost.seconds)}, from a short trial on this machine, as busy as it is now; reading and writing come on top",
        )

    def finish(self) -> None:
        """Print packages and warnings."""
        self.line("packages", packages())
        for warning in self.warnings:
            self.line("warning", warning)
        self.line("", "Nothing was run. Leave out the word check to run it.")


# ----------------------------------------------------------------------------------------------------------- pieces


def factor_of(header: Header, factor: float | None) -> float:
    """The axial factor: the given one, or the one that makes the voxels of the header isotropic.

    Raises:
        InputError: it is not above 1, or nothing is coarse in Z.
    """
    if factor is not None:
        return lattice.check_factor(factor)
    return lattice.isotropic_factor(lattice.voxel_size(header.affine))


def packages(metadata: str | Path | None = None) -> str:
    """
    Compare the packages that are installed with those that the bundle was tested with.

    Args:
        metadata: ``metadata.json``; None takes the bundle's.

    Returns:
        A sentence that names those that are missing and those of another version.
    """
    file = Path(bundle_root()) / "configs" / "metadata.json" if metadata is None else metadata
    document = ConfigParser.load_config_file(file)
    tested = {name: document[f"{key}_version"] for key, name in _NAMES.items() if f"{key}_version" in document}
    tested.update(document["required_packages_version"])
    missing, other = [], []
    for name, wanted in tested.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found != wanted:
            other.append(f"{name} {found} ({wanted})")
    text = f"missing: {', '.join(missing)}; install with pip install {' '.join(missing)}" if missing else "all there"
    return f"{text}; other versions than tested: {', '.join(other)}" if other else text


_NAMES = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}


def about(seconds: float) -> str:
    """Return a duration in words, no finer than it is known."""
    for unit, length, end in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < end:
            return f"about {_number(max(seconds / length, 1 if unit == 's' else 0))} {unit}"
    return f"about {_number(seconds / 86400)} days"


def _sides(largest: int) -> list[int]:
    """Sides of square trials, doubling, on the networks' grid."""
    largest = max(GRID, largest // GRID * GRID)
    sides = [min(_SMALLEST_TRIAL, largest)]
    while sides[-1] < largest:
        sides.append(min(2 * sides[-1], largest))
    return sides


def _largest_trial(work: Callable[[int], None], sizes: Sequence[int], device: torch.device) -> _Trial:
    """Run ``work`` with growing sizes until it takes long enough to be measured, after one run that is not timed."""
    gpu = 0.0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    memory = _peak(lambda: work(sizes[0]))
    for size in sizes:
        begin = time.perf_counter()
        memory = max(memory, _peak(lambda: work(size)))
        _wait(device)
        seconds = time.perf_counter() - begin
        if device.type == "cuda":
            gpu = float(torch.cuda.max_memory_allocated(device))
        if seconds > _ENOUGH_SECONDS:
            break
    return _Trial(seconds, memory, gpu, size)


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


def _cost_of(stage: Mapping[str, Any], config_dir: str | Path, header: Header) -> tuple[Cost, str]:
    """Cost and network of a stage, from the section ``cost`` of its config."""
    options = {name: value for name, value in stage["options"].items() if value is not None}
    with _quiet():
        workflow = ConfigWorkflow(
            config_file=str(Path(config_dir) / stage["config"]), workflow_type=None, logging_file=False, **options
        )
        cost = workflow.parser.get_parsed_content("cost")
    return cost.measure(header), _parameters_of(cost.network)


def _refined(header: Header, factor: float) -> Header:
    x, y, slices = header.shape
    shape = (x, y, lattice.output_size(slices, factor))
    return header._replace(shape=shape, affine=lattice.refined_affine(header.affine, factor))


def _parameters_of(network: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{type(network).__name__} with {count:,} parameters"


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop log records below errors."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _free(path: str | Path) -> int:
    """Bytes that are free where a file is to be written."""
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _size(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)


def _number(value: float) -> str:
    """Two significant digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1g}" if value < 0.1 else f"{value:.1f}".removesuffix(".0")


def _bytes(count: float) -> str:
    for unit, size in (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)):
        if count < 1000 * size or unit == "GiB":
            return f"{_number(count / size)} {unit}"
    raise AssertionError("unreachable")
