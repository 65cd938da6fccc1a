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

"""``run check``: what a run would do, on a page. Nothing is written, and the only work is a few real steps.

Configs call the functions ``check_...``, ``given`` their options ``reading``, ``factor`` and ``target_spacing``. Each
raises the InputError that the run would end in. An ``overwrite`` of None is of an output that is finished and stays.
"""

from __future__ import annotations

import math
import resource
import textwrap
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import humanize
import psutil
import torch
from monai.bundle import ConfigParser
from scripts import lattice
from scripts.cli.sizes import check_store
from scripts.cli.trial import Cost, RestorationTrial, TrainingTrial, Trial
from scripts.cli.words import started_from_command_line
from scripts.errors import InputError
from scripts.provenance import bundle_root, machine
from scripts.reconstruction.save_blocks import SaveBlocks
from scripts.volumes.factor import factor_of, why_not_cubic
from scripts.volumes.memory import free_memory
from scripts.volumes.outputs import check_output, check_space, free_space
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import Header, check_volume, read_header
from scripts.volumes.writing import stored_dtype

Place = str | PathLike
READ_UP_TO = 2**30  # bytes in single precision: of a larger volume only the header is read

_WIDTH, _TITLE_WIDTH = 112, 12
_PACKAGES = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}  # by their keys in metadata.json


def check_inference(saver: SaveBlocks | None, trial: Trial, weights: Place, **given: Any) -> None:
    """Tell what ``inference.yaml`` would do; ``saver`` has its volumes and outputs, and is None without an output."""
    if saver is None:
        raise InputError("--output is missing: add --output and its value to the command")
    page, (smallest, largest) = Page(), trial.inferer.train_factors
    for volume, path in zip(saver.dataset.volumes, saver.output_paths(), strict=True):
        header, factor = page.input(volume.path, **given)
        page.output(header, factor, path, saver.overwrite, [volume.path, weights])
        check_store(header, path, factor, saver.layout, saver.block)
        page.work(trial, header)
        if not smallest <= factor <= largest:
            page.warnings.append(f"the factor {factor:g} is outside the range that the weights were trained for")
    trained = f"the factor {smallest:g} alone" if smallest == largest else f"factors {smallest:g} to {largest:g}"
    page.line("weights", f"{weights}: fit the network, {type(trial.network).__name__}; trained for {trained}")
    page.end(trial.device)


def check_generate(
    volume: Place, output: Place, overwrite: bool | None, weights: Place, trial: RestorationTrial, **given: Any
) -> None:
    """Tell what ``generate.yaml`` would do; ``output`` is the pseudo-HR volume."""
    page, prior_factor = Page(), trial.inferer.prior_factor
    header, _ = page.input(volume, **given)
    page.output(header, prior_factor, output, overwrite, [volume, weights])
    fit = "fit the network" if prior_factor > 1 else "not needed"
    page.line("weights", f"{weights}: {fit}, for k = {prior_factor:g}")
    page.work(trial, header)
    page.end(trial.device)


def check_training(volume: Place, trial: TrainingTrial, **given: Any) -> None:
    """Tell what ``train_diffusion.yaml``, or ``train.yaml``, which does without a factor, would do."""
    page, output = Page(), trial.trainer.output
    output.check()
    header, _ = page.input(volume, **given)
    page.line("output", f"{output.weights} (weights), with checkpoint and curves beside it")
    page.warn_if_there(output.weights, overwrite=True)
    page.work(trial, header)
    page.end(trial.device)


def check_d2r(
    volume: Place,
    output: Place,
    overwrite: bool | None,
    workdir: Place,
    preset: str,
    stages: Sequence[Mapping[str, Any]],
    trials: dict[str, Trial],
    device: torch.device,
    **given: Any,
) -> None:
    """Tell what ``d2r.yaml`` would do, stage by stage; those that are done have no trial."""
    page, begun = Page(), (Path(workdir) / "run.json").is_file()
    header, factor = page.input(volume, **given)
    page.output(header, factor, output, overwrite, [volume])
    page.line("workdir", f"{workdir}: {'holds a part of this run already' if begun else 'nothing there yet'}")
    page.line("preset", preset)
    wanted = [stage for stage in stages if not stage["skip"]]
    for number, stage in enumerate(wanted, 1):
        title, what = f"{number} of {len(wanted)}", stage["title"]
        if what in trials:
            page.work(trials.pop(what), header.refined(stage["factor"]), title, f"{what}: ")  # its memory is free again
        else:
            page.line(title, f"{what}: done before ({stage['result']})")
    page.end(device)


class Page:
    """Lines of a title and a text, printed as they come; warnings come last."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._costs = [Cost("", 0, 0, 0)]
        self._measuring = 0.0  # seconds

    def line(self, title: str, text: str) -> None:
        """Print a line, wrapped."""
        wrap = partial(textwrap.fill, break_long_words=False, break_on_hyphens=False)
        print(wrap(f"{title:<{_TITLE_WIDTH}}{text}", _WIDTH, subsequent_indent=" " * _TITLE_WIDTH), flush=True)

    def input(self, path: Place, reading: ReadOptions, **given: float | None) -> tuple[Header, float]:
        """Print what the input is and the factor, where its options are given; a volume that is not large is read."""
        header, values = read_header(path, reading), "values not read"
        if 4 * math.prod(header.shape) <= READ_UP_TO:
            values = "values from {:g} to {:g}".format(*check_volume(path, reading, self.warnings.append))
        else:
            why = "so only its header was read; the run itself finds voxels that are NaN or damaged"
            self.warnings.append(f"{path} is large, {why}")
        self.line("input", f"{path}: {_sizes(header.shape)} voxels (x, y, z), {header.dtype}, {values}")
        source = ", from the file" if reading.spacing is None else ", given by --spacing"
        if reading.spacing is None and header.has_no_voxel_size:
            source = ": the file has no voxel size; --spacing '[z,y,x]' gives it"
        self.line("voxel size", f"{_sizes(header.voxel_size)} {header.unit} (x, y, z){source}")
        if not given:
            return header, 1.0
        factor, target = factor_of(header, **given), given["target_spacing"]
        source = "from the voxel size: Z becomes as fine as XY" if given["factor"] is None else "given by --factor"
        if target is not None:
            source = f"for slices {target:g} {header.unit} apart, given by --target_spacing"
        self.line("factor", f"{factor:g}, {source}")
        self.warnings += filter(None, [why_not_cubic(header, factor)])
        return header, factor

    def output(
        self, header: Header, factor: float, path: Place, overwrite: bool | None, inputs: Sequence[Place]
    ) -> None:
        """Print file, grid and lattice of an output with ``factor`` times finer Z."""
        fine, slices = header.refined(factor), header.shape[2]
        check_output(path, overwrite=True, inputs=inputs)
        check_space(path, fine.shape, header.dtype, factor)
        dtype = stored_dtype(header.dtype, path)
        size = _bytes(math.prod(fine.shape) * dtype.itemsize)
        size += " or less, compressed" if str(path).lower().endswith(".gz") else ""
        voxels = f"{_sizes(fine.shape)} voxels of {_sizes(fine.voxel_size)} {header.unit}"
        self.line("output", f"{path}: {voxels}, {dtype}, {size}; {_bytes(free_space(path))} are free there")
        z, kept = fine.shape[2], len(lattice.kept_indices(slices, factor))
        first, last = (len(lattice.interval(i, slices, factor, copy=True).relative_depths) for i in (0, slices - 2))
        self.line(
            "slices",
            f"{slices} become {z}: {kept} of the input ({kept / z:.0%}) and {z - kept} new; {first} new in the first "
            f"interval (slices 1 to 2), {last} in the last ({slices - 1} to {slices})",
        )
        self.warn_if_there(path, overwrite)

    def warn_if_there(self, path: Place, overwrite: bool | None) -> None:
        """Warn of an output that exists; None means that it is finished and stays."""
        if overwrite is None:
            self.warnings.append(f"{path} was finished before and stays as it is")
        elif Path(path).exists():
            advice = " and would be replaced" if overwrite else ": the run needs --overwrite true, or another name"
            self.warnings.append(f"{path} exists{advice}")

    def work(self, trial: Trial, header: Header, title: str = "work", what: str = "") -> None:
        """Measure and print what there is to do, and how long that takes."""
        begin, cost = time.perf_counter(), trial.measure(header)
        self._measuring += time.perf_counter() - begin
        self._costs.append(cost)
        size = sum(each.numel() for each in trial.network.parameters())
        network = f"{type(trial.network).__name__} with {size:,} parameters"
        self.line(title, f"{what}{network}; {cost.work}; {about(cost.seconds)}")

    def end(self, device: torch.device) -> None:
        """Print device, memory, time, packages and warnings: the end of the page."""
        _, seconds, memory, gpu_memory = zip(*self._costs, strict=True)
        cuda, process = torch.device(device).type == "cuda", psutil.Process()
        self.line("device", machine() if cuda or not torch.cuda.is_available() else str(device))
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        needed = [("free on this machine", peak + max(memory), process.memory_info().rss + free_memory())]
        if cuda:
            needed.append(("on the GPU", max(gpu_memory), torch.cuda.get_device_properties(device).total_memory))
        sizes = [f"about {_bytes(size)} of the {_bytes(most)} {what}" for what, size, most in needed]
        self.line("memory", ", and ".join(sizes))
        advice = "may not be enough; cut the volume, or take smaller tiles, patches or batches"
        self.warnings += [f"the memory {what} {advice}" for what, size, most in needed if size > most]
        start = time.time() - process.create_time() - self._measuring if started_from_command_line() else 0.0
        of_them = f", {start:.0f} s of them to start and to read" if start else ""
        measured = "by a few steps on this machine, as busy as it is now; writing large files comes on top"
        self.line("time", f"{about(start + sum(seconds))}{of_them}; {measured}")
        self.line("packages", packages())
        for warning in self.warnings:
            self.line("warning", warning)
        self.line("", "Nothing was run. Leave out the word check to run it.")


def packages(metadata: Place | None = None) -> str:
    """A sentence on the packages that are missing, or of another version than ``metadata.json`` says the bundle was
    tested with; None takes the bundle's.
    """
    document = ConfigParser.load_config_file(metadata or Path(bundle_root()) / "configs" / "metadata.json")
    tested = {name: document.get(f"{key}_version") for key, name in _PACKAGES.items()}
    missing, other = [], []
    for name, wanted in {**tested, **document["required_packages_version"]}.items():
        try:
            found = version(name).split("+")[0]
            other += [f"{name} {found} ({wanted})"] if wanted and found != wanted else []
        except PackageNotFoundError:
            missing.append(name)
    text = f"missing: {', '.join(missing)}; install with pip install {' '.join(missing)}" if missing else "all there"
    return f"{text}; other versions than tested: {', '.join(other)}" if other else text


def about(seconds: float) -> str:
    """Return a duration in words, to two significant digits: no finer than it is known."""
    rounded = float(f"{max(1.0, seconds):.2g}")
    smallest = "seconds" if rounded < 600 else "minutes" if rounded < 2 * 86400 else "hours"
    return f"about {humanize.precisedelta(rounded, minimum_unit=smallest, format='%d')}"


def _sizes(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.6g}" for size in sizes)


_bytes = partial(humanize.naturalsize, binary=True)
