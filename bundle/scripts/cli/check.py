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

"""``run check``: what a run would do, on a page. Nothing is written, and the only work is a few real steps."""

from __future__ import annotations

import math
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import humanize
import psutil
import torch
from monai.bundle import ConfigParser
from scripts import lattice
from scripts.cli.pipeline import is_done, refined, stage_is_done, stage_workflow
from scripts.cli.sizes import check_restoration
from scripts.cli.trial import Cost, ReconstructionTrial, RestorationTrial, TrainingTrial
from scripts.cli.words import started_from_command_line
from scripts.errors import InputError
from scripts.provenance import bundle_root, machine
from scripts.reconstruction.save_blocks import SaveBlocks
from scripts.volumes.factor import factor_of, why_not_cubic
from scripts.volumes.outputs import check_folder, check_output, check_space, free_space
from scripts.volumes.paths import check_place
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import Header, check_volume, read_header
from scripts.volumes.writing import stored_dtype
from torch import nn

READ_UP_TO = 2**30
"""A volume of so many bytes (in single precision) or fewer is read to its last voxel; of larger ones only the header.
"""

_WIDTH, _TITLE_WIDTH = 112, 12
_PACKAGES = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}  # by their keys in metadata.json


def check_inference(
    saver: SaveBlocks | None,
    trial: ReconstructionTrial,
    weights: str | Path,
    reading: ReadOptions = AS_STORED,
    factor: float | None = None,
    target_spacing: float | None = None,
) -> None:
    """
    Tell what ``inference.yaml`` would do. The weights are already in the network of the trial, so they fit.

    Args:
        saver: of the run: its volumes and outputs; None where no output is given.
        trial: of the run.
        weights, reading, factor, target_spacing: the options.

    Raises:
        InputError: the run would end in the same.
    """
    if saver is None:
        raise InputError("--output is missing: add --output and its value to the command")
    page, costs = Page(), []
    smallest, largest = trial.inferer.train_factors
    for volume, path in zip(saver.dataset.volumes, saver.output_paths()):
        check_output(path, overwrite=True, inputs=[volume.path, weights])
        header = page.volume(volume.path, reading)
        page.output(header, page.factor(header, factor, target_spacing), path, saver.overwrite)
        costs.append(trial.measure(header))
        if not smallest <= volume.factor <= largest:
            page.warnings.append(f"the factor {volume.factor:g} is outside the range that the weights were trained for")
    trained = f"the factor {smallest:g} alone" if smallest == largest else f"factors {smallest:g} to {largest:g}"
    page.line("weights", f"{weights}: fit the network, {type(trial.network).__name__}; trained for {trained}")
    page.cost(costs[-1]._replace(seconds=sum(cost.seconds for cost in costs)), trial.device)


def check_generate(
    volume: str | Path,
    output: str | Path,
    weights: str | Path,
    prior_factor: float,
    trial: RestorationTrial,
    reading: ReadOptions = AS_STORED,
    factor: float | None = None,
    target_spacing: float | None = None,
    overwrite: bool | None = False,
) -> None:
    """
    Tell what ``generate.yaml`` would do.

    Args:
        volume, weights, reading, factor, target_spacing, overwrite: the options; None for an output that is finished and stays.
        output: the pseudo-HR volume.
        prior_factor: k.
        trial: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page = Page()
    check_output(output, overwrite=True, inputs=[volume, weights])
    header = page.volume(volume, reading)
    page.factor(header, factor, target_spacing)
    check_restoration(header, output, prior_factor)
    if prior_factor == 1:
        page.line("output", f"{output}: the volume as it is, for k is 1")
        page.warn_if_there(output, overwrite)
    else:
        page.output(header, prior_factor, output, overwrite)
        page.line("weights", f"{weights}: fit the network; trained for k = {prior_factor:g}")
    page.cost(trial.measure(header), trial.device)


def check_training(
    volume: str | Path,
    result: str | Path,
    trial: TrainingTrial,
    reading: ReadOptions = AS_STORED,
    needs_factor: bool = False,
    factor: float | None = None,
    target_spacing: float | None = None,
) -> None:
    """
    Tell what ``train_diffusion.yaml`` or ``train.yaml`` would do.

    Args:
        volume, reading, factor, target_spacing: the options.
        result: weights that are written at the end.
        trial: of the run.
        needs_factor: whether the training depends on the factor.

    Raises:
        InputError: the run would end in the same.
    """
    page, name = Page(), Path(result).name
    check_folder(Path(result).parent, [name, "checkpoint.pt"], [volume], [name], unless="checkpoint.pt")
    header = page.volume(volume, reading)
    if needs_factor:
        page.factor(header, factor, target_spacing)
    page.line("output", f"{result} (weights), with checkpoint and curves beside it")
    page.line("network", _describe(trial.network))
    if Path(result).is_file():
        page.warnings.append(f"{result} exists and would be replaced")
    page.cost(trial.measure(header), trial.device)


def check_d2r(
    volume: str | Path,
    output: str | Path,
    workdir: str | Path,
    preset: str,
    stages: Sequence[Mapping[str, Any]],
    config_dir: str | Path,
    device: torch.device,
    reading: ReadOptions = AS_STORED,
    factor: float | None = None,
    target_spacing: float | None = None,
    overwrite: bool = False,
) -> None:
    """
    Tell what ``d2r.yaml`` would do, stage by stage.

    Args:
        volume, output, workdir, preset, reading, factor, target_spacing, overwrite: the options.
        stages, config_dir: see :func:`scripts.cli.pipeline.run_stages`; each config has a section ``trial``.
        device: of the run.

    Raises:
        InputError: the run would end in the same.
    """
    page, record = Page(), Path(workdir) / "run.json"
    check_output(output, overwrite=True, inputs=[volume])
    check_place(record)
    header = page.volume(volume, reading)
    page.output(
        header,
        page.factor(header, factor, target_spacing),
        output,
        None if is_done(workdir, output, overwrite) else overwrite,
    )
    page.line(
        "workdir", f"{workdir}: {'holds a part of this run already' if record.is_file() else 'nothing there yet'}"
    )
    page.line("preset", preset)
    costs = [Cost("all that is left", 0, 0, 0)]
    trained: dict[str, nn.Module] = {}
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title = f"{number} of {len(wanted)}"
        if stage_is_done(stage, workdir):
            page.line(title, f"{stage['title']}: done before ({stage['result']})")
            continue
        begin = time.perf_counter()
        trial = stage_workflow(stage, config_dir, trained).parser.get_parsed_content("trial")
        begun = time.perf_counter() - begin  # a run has to do the same
        cost = trial.measure(refined(header, stage["factor"]))
        costs.append(cost._replace(seconds=begun + cost.seconds))
        trial.network.zero_grad(set_to_none=True)
        trained[stage["result"]] = trial.network
        page.line(title, f"{stage['title']}: {_describe(trial.network)}; {cost.work}; {about(costs[-1].seconds)}")
    _, seconds, memory, gpu_memory = zip(*costs)
    page.cost(Cost(costs[0].work, sum(seconds), max(memory), max(gpu_memory)), device)


class Page:
    """Lines of a title and a text, printed as they come; warnings come last."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        process = psutil.Process()
        self._start = time.time() - process.create_time() if started_from_command_line() else 0.0

    def line(self, title: str, text: str) -> None:
        """Print a line, wrapped."""
        lines = textwrap.wrap(text, _WIDTH - _TITLE_WIDTH, break_long_words=False, break_on_hyphens=False)
        for index, part in enumerate(lines):
            print(f"{'' if index else title:<{_TITLE_WIDTH}}{part}", flush=True)

    def volume(self, path: str | os.PathLike, reading: ReadOptions) -> Header:
        """Print what the input is; a volume that is not large is read, so that all its faults are found."""
        header = read_header(path, reading)
        if 4 * math.prod(header.shape) <= READ_UP_TO:
            values = "values from {:g} to {:g}".format(*check_volume(path, reading, self.warnings.append))
        else:
            values = "values not read"
            self.warnings.append(
                f"{path} is large, so only its header was read; the run itself finds voxels that are NaN or damaged"
            )
        self.line("input", f"{path}: {_sizes(header.shape)} voxels (x, y, z), {header.dtype}, {values}")
        source = ", from the file" if reading.spacing is None else ", given by --spacing"
        if reading.spacing is None and header.unit == "pixel" and header.voxel_size == (1, 1, 1):
            source = ": the file has no voxel size; --spacing '[z,y,x]' gives it"
        self.line("voxel size", f"{_sizes(header.voxel_size)} {header.unit} (x, y, z){source}")
        return header

    def factor(self, header: Header, factor: float | None, target_spacing: float | None) -> float:
        """Print the factor and return it."""
        value = factor_of(header, factor, target_spacing)
        source = "from the voxel size: Z becomes as fine as XY"
        if target_spacing is not None:
            source = f"for slices {target_spacing:g} {header.unit} apart, given by --target_spacing"
        elif factor is not None:
            source = "given by --factor"
        self.line("factor", f"{value:g}, {source}")
        not_cubic = why_not_cubic(header, value)
        self.warnings.extend([not_cubic] if not_cubic else [])
        return value

    def output(self, header: Header, factor: float, path: str | Path, overwrite: bool | None) -> None:
        """Print file, grid and lattice of an output with ``factor`` times finer Z."""
        fine, slices = refined(header, factor), header.shape[2]
        check_space(path, fine.shape, header.dtype, factor)
        dtype, z = stored_dtype(header.dtype, path), fine.shape[2]
        size = _bytes(math.prod(fine.shape) * dtype.itemsize)
        at_most = " or less, compressed" if str(path).lower().endswith(".gz") else ""
        voxels = f"{_sizes(fine.shape)} voxels of {_sizes(fine.voxel_size)} {header.unit}"
        self.line("output", f"{path}: {voxels}, {dtype}, {size}{at_most}; {_bytes(free_space(path))} are free there")
        kept = len(lattice.kept_indices(slices, factor))
        first, last = (len(lattice.interval(i, slices, factor, copy=True).relative_depths) for i in (0, slices - 2))
        self.line(
            "slices",
            f"{slices} become {z}: {kept} of the input ({kept / z:.0%}) and {z - kept} new; {first} new in the first "
            f"interval (slices 1 to 2), {last} in the last ({slices - 1} to {slices})",
        )
        self.warn_if_there(path, overwrite)

    def warn_if_there(self, path: str | Path, overwrite: bool | None) -> None:
        """Warn of an output that exists; None means that it is finished and stays."""
        if overwrite is None:
            self.warnings.append(f"{path} was finished before and stays as it is")
        elif Path(path).exists():
            advice = " and would be replaced" if overwrite else ": the run needs --overwrite true, or another name"
            self.warnings.append(f"{path} exists{advice}")

    def cost(self, cost: Cost, device: torch.device) -> None:
        """Print device, memory, time, packages and warnings: the end of the page."""
        cuda, here = torch.device(device).type == "cuda", psutil.virtual_memory().total
        self.line("device", machine() if cuda or not torch.cuda.is_available() else str(device))
        self.line("work", cost.work)
        text = f"about {_bytes(cost.memory)} of the {_bytes(here)} of this machine"
        if cost.memory > here:
            self.warnings.append("the memory may not be enough; cut the volume")
        if cuda:
            there = torch.cuda.get_device_properties(device).total_memory
            text += f", and about {_bytes(cost.gpu_memory)} of the {_bytes(there)} of the GPU"
            if cost.gpu_memory > there:
                self.warnings.append("the GPU's memory may not be enough; take smaller tiles, patches or batches")
        self.line("memory", text)
        text = about(self._start + cost.seconds)
        if self._start:
            text += f", {self._start:.0f} s of them to start and to read"
        self.line(
            "time", f"{text}; by a few steps on this machine, as busy as it is now; writing large files comes on top"
        )
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
    tested = {name: document[f"{key}_version"] for key, name in _PACKAGES.items() if f"{key}_version" in document}
    missing, other = [], []
    for name, wanted in {**tested, **document["required_packages_version"]}.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            missing.append(name)
            continue
        if found != wanted:
            other.append(f"{name} {found} ({wanted})")
    text = f"missing: {', '.join(missing)}; install with pip install {' '.join(missing)}" if missing else "all there"
    return f"{text}; other versions than tested: {', '.join(other)}" if other else text


def about(seconds: float) -> str:
    """Return a duration in words, to two significant digits: no finer than it is known."""
    rounded = float(f"{max(1.0, seconds):.2g}")
    smallest = "seconds" if rounded < 600 else "minutes" if rounded < 2 * 86400 else "hours"
    return f"about {humanize.precisedelta(rounded, minimum_unit=smallest, format='%d')}"


def _describe(network: nn.Module) -> str:
    return f"{type(network).__name__} with {sum(each.numel() for each in network.parameters()):,} parameters"


def _sizes(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)


def _bytes(count: float) -> str:
    return humanize.naturalsize(count, binary=True)
