# SPDX-License-Identifier: Apache-2.0
"""What a run would do, told on a page by ``run check``: nothing is written, and the only work is a trial of a few seconds."""

from __future__ import annotations

import math
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts import lattice
from scripts.cli.command_line import started_from_command_line, true_or_false
from scripts.cli.cost import Cost, ReconstructionCost, RestorationCost, TrainingCost, quiet, since_start, two_digits
from scripts.cli.pipeline import is_done, refined, stage_is_done, stage_workflow
from scripts.cli.sizes import check_restoration
from scripts.provenance import bundle_root, machine
from scripts.volumes.batches import check_memory as check_room_for
from scripts.volumes.factor import factor_of, why_not_cubic
from scripts.volumes.outputs import check_folder, check_output, check_space, free_space
from scripts.volumes.paths import check_place
from scripts.volumes.reading import Header, check_volume, read_header
from scripts.volumes.writing import stored_dtype

READ_UP_TO = 2**30
"""A volume of so many bytes (in single precision) or fewer is read to its last voxel; of larger ones only the header."""

_WIDTH, _TITLE_WIDTH = 112, 12


def tell_inference(
    volume: str | Path,
    output: str | Path,
    weights: str | Path,
    train_factors: Sequence[float],
    cost: ReconstructionCost,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str = False,
    axes: str | None = None,
) -> None:
    """
    Tell what ``inference.yaml`` would do. The weights are already in the network of ``cost``, so they fit.

    Args:
        volume, output, weights, spacing, factor, overwrite, axes: the options.
        train_factors: factors that the weights were trained for.
        cost: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True, inputs=[volume, weights])
    header = page.tell_input(volume, spacing, axes)
    factor = cost.inferer.check_trained(page.tell_factor(header, factor))
    page.tell_output(header, factor, output, overwrite, streamed=True)
    smallest, largest = train_factors
    trained = f"the factor {smallest:g} alone" if smallest == largest else f"factors {smallest:g} to {largest:g}"
    page.line("weights", f"{weights}: fit the network, {type(cost.network).__name__}; trained for {trained}")
    if not train_factors[0] <= factor <= train_factors[1]:
        page.warn(f"the factor {factor:g} is outside the range that the weights were trained for")
    start = _start()
    page.tell_cost(cost.measure(header), cost.device, start)
    page.finish()


def tell_restoration(
    volume: str | Path,
    output: str | Path,
    weights: str | Path,
    prior_factor: float,
    cost: RestorationCost,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str | None = False,
    axes: str | None = None,
) -> None:
    """
    Tell what ``generate.yaml`` would do. The weights are already in the network of ``cost``, so they fit.

    Args:
        volume, weights, spacing, factor, overwrite, axes: the options; None for an output that is finished and stays.
        output: the pseudo-HR volume.
        prior_factor: k.
        cost: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True, inputs=[volume, weights])
    header = page.tell_input(volume, spacing, axes)
    page.tell_factor(header, factor)
    check_restoration(volume, output, prior_factor, spacing, axes)
    if prior_factor == 1:
        page.line("output", f"{output}: the volume as it is, for k is 1")
        page.warn_if_there(output, overwrite)
    else:
        page.tell_output(header, prior_factor, output, overwrite)
        page.line("weights", f"{weights}: fit the network; trained for k = {prior_factor:g}")
    start = _start()
    page.tell_cost(cost.measure(header), cost.device, start)
    page.finish()


def tell_training(
    volume: str | Path,
    result: str | Path,
    cost: TrainingCost,
    spacing: Sequence[float] | None = None,
    needs_factor: bool = False,
    factor: float | None = None,
    axes: str | None = None,
) -> None:
    """
    Tell what ``train_diffusion.yaml`` or ``train.yaml`` would do.

    Args:
        volume, spacing, factor, axes: the options.
        result: weights that are written at the end.
        cost: of the run.
        needs_factor: whether the training depends on the axial factor.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    folder = Path(result).parent
    check_folder(folder, [Path(result).name, "checkpoint.pt"], [volume], [Path(result).name], unless="checkpoint.pt")
    header = page.tell_input(volume, spacing, axes)
    if needs_factor:
        page.tell_factor(header, factor)
    page.line("output", f"{result} (weights), with checkpoint and curves beside it")
    page.line("network", _parameters_of(cost.network))
    if Path(result).is_file():
        page.warn(f"{result} exists and would be replaced")
    start = _start()
    page.tell_cost(cost.measure(header), cost.device, start)
    page.finish()


def tell_stages(
    volume: str | Path,
    output: str | Path,
    workdir: str | Path,
    preset: str,
    stages: Sequence[Mapping[str, Any]],
    config_dir: str | Path,
    device: torch.device,
    spacing: Sequence[float] | None = None,
    factor: float | None = None,
    overwrite: bool | str = False,
    axes: str | None = None,
) -> None:
    """
    Tell what ``d2r.yaml`` would do, stage by stage.

    Args:
        volume, output, workdir, preset, spacing, factor, overwrite, axes: the options.
        stages, config_dir: see :func:`scripts.cli.pipeline.run_stages`; each config has a section ``cost``, and each stage "finer", how many
            times finer Z is in the volume that it reads than in the input.
        device: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True, inputs=[volume])
    check_place(Path(workdir) / "run.json")
    header = page.tell_input(volume, spacing, axes)
    factor = page.tell_factor(header, factor)
    done = is_done(workdir, output, overwrite)
    page.tell_output(header, factor, output, None if done else overwrite, streamed=True)
    begun = "holds a part of this run already" if (Path(workdir) / "run.json").is_file() else "nothing there yet"
    page.line("workdir", f"{workdir}: {begun}")
    page.line("preset", preset)
    start = _start()
    costs: list[Cost] = []
    trained: dict[str, nn.Module] = {}
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title = f"{number} of {len(wanted)}"
        if stage_is_done(stage, workdir):
            page.line(title, f"{stage['title']}: done before ({stage['result']})")
            continue
        cost, network = _cost_of(stage, config_dir, refined(header, stage["finer"]), trained)
        costs.append(cost)
        trained[stage["result"]] = network
        page.line(title, f"{stage['title']}: {_parameters_of(network)}; {cost.work}; {about(cost.seconds)}")
    total = Cost(
        "all that is left",
        sum(cost.seconds for cost in costs),
        max((cost.memory for cost in costs), default=0),
        max((cost.gpu_memory for cost in costs), default=0),
    )
    page.tell_cost(total, device, start)
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

    def tell_input(self, path: str | Path, spacing: Sequence[float] | None, axes: str | None) -> Header:
        """Print what the input is; a volume that is not large is read, so that all its faults are found."""
        header = read_header(path, spacing, axes)
        voxels = math.prod(header.shape)
        if 4 * voxels <= READ_UP_TO:
            low, high = check_volume(path, spacing, axes, self.warn)
            values = f"values from {low:g} to {high:g}"
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
        not_cubic = why_not_cubic(header, value)
        if not_cubic is not None:
            self.warn(not_cubic)
        return value

    def tell_output(
        self, header: Header, factor: float, path: str | Path, overwrite: bool | str | None, streamed: bool = False
    ) -> None:
        """Print file, grid and lattice of an output with ``factor`` times finer Z, which is in memory unless it is ``streamed``."""
        x, y, slices = header.shape
        z = lattice.output_size(slices, factor)
        if streamed:
            check_space(path, (x, y, z), header.dtype, factor)
        else:
            check_room_for(x * y * z, factor)
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
        free = free_space(path)
        if size > free:
            self.warn(f"{path}: needs {_bytes(size)} and only {_bytes(free)} are free there")

    def warn_if_there(self, path: str | Path, overwrite: bool | str | None) -> None:
        """Warn of an output that exists; None means that it is finished and stays."""
        if overwrite is None:
            self.warn(f"{path} was finished before and stays as it is")
            return
        replace = true_or_false(overwrite, "overwrite")
        if Path(path).exists():
            self.warn(
                f"{path} exists"
                + (" and would be replaced" if replace else ": the run needs --overwrite true, or another name")
            )

    def tell_cost(self, cost: Cost, device: torch.device, start: float) -> None:
        """Print device, memory and time; ``start``: seconds that go by before the work begins."""
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
        text = f"{about(start + cost.seconds)}"
        if start:
            text += f", {two_digits(start)} s of them to start and to read"
        self.line(
            "time", f"{text}; by short trials on this machine, as busy as it is now; writing large files comes on top"
        )

    def finish(self) -> None:
        """Print packages and warnings."""
        self.line("packages", packages())
        for warning in self.warnings:
            self.line("warning", warning)
        self.line("", "Nothing was run. Leave out the word check to run it.")


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
            return f"about {two_digits(max(seconds / length, 1 if unit == 's' else 0))} {unit}"
    return f"about {two_digits(seconds / 86400)} days"


def _cost_of(
    stage: Mapping[str, Any], config_dir: str | Path, header: Header, trained: Mapping[str, nn.Module]
) -> tuple[Cost, nn.Module]:
    """Cost and network of a stage, from the section ``cost`` of its config; ``trained``: networks by the weights that are still to come."""
    begin = time.perf_counter()
    with quiet():
        cost = stage_workflow(stage, config_dir, trained).parser.get_parsed_content("cost")
    begun = time.perf_counter() - begin  # a run has to do the same
    needs = cost.measure(header)
    cost.network.zero_grad(set_to_none=True)
    return needs._replace(seconds=begun + needs.seconds), cost.network


def _start() -> float:
    """Seconds that go by before the work begins, as they went by here; 0 where Python code asks, which has been started."""
    return since_start() if started_from_command_line() else 0.0


def _parameters_of(network: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in network.parameters())
    return f"{type(network).__name__} with {count:,} parameters"


def _size(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)


def _bytes(count: float) -> str:
    for unit, size in (("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)):
        if count < 1000 * size or unit == "GiB":
            return f"{two_digits(count / size)} {unit}"
    raise AssertionError("unreachable")
