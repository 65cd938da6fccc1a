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

"""What a run takes in time and memory, from a few real steps of it with noise in the place of the volume."""

from __future__ import annotations

import copy
import math
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from scripts import lattice
from scripts.diffusion.pseudo_volume import PseudoVolumeInferer
from scripts.diffusion.room import check_restoration_memory
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.reconstruction.block_dataset import OUTPUT_VOXELS
from scripts.reconstruction.predictor import TTAPredictor
from scripts.training.checkpoint import read_checkpoint
from scripts.training.step import TrainingStep
from scripts.training.trainer import VolumeTrainer
from scripts.volumes.factor import factor_of
from scripts.volumes.reading import Header
from scripts.volumes.volume_block import BLOCK
from torch import nn

_ENOUGH_SECONDS = 0.4  # a step is repeated until it has taken as long
_TOO_LONG = 2.0  # a step that takes longer is not repeated
_MOST_SECONDS = 10.0  # on a CPU, for a step; of a longer one only a single item is computed
_LARGEST_IMAGE = 512  # side of an image of stage II; of larger ones the time grows with the pixels


class Cost(NamedTuple):
    """What a run takes.

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


class ReconstructionTrial:
    """Trial of ``inference.yaml``: one block.

    Args:
        network: of stage III, on the device.
        inferer: of the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: AxialInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = copy.copy(inferer)
        self.inferer.progress = False
        self.device = torch.device(device)

    def check(self, header: Header) -> None:
        """A volume of the header's shape can always be reconstructed: blocks keep the memory small."""

    def measure(self, header: Header) -> Cost:
        """Cost for a volume of the header's shape."""
        x, y, slices = header.shape
        self.inferer.factor = factor = factor_of(header, self.inferer.factor)
        looks = TTAPredictor.looks if self.inferer.tta and self.device.type == "cpu" else 1
        if looks > 1:  # a CPU is asked for one
            self.inferer.tta = False
        voxels = OUTPUT_VOXELS["cuda"] if self.device.type == "cuda" else 0
        blocks = self.inferer.blocks(header.shape, factor, self.network, self.device, voxels)
        block = blocks[0]
        sizes = [side.stop - side.start for side in block.input]
        image = MetaTensor(torch.rand(1, 1, *sizes, device=self.device), meta={BLOCK: torch.tensor([block.numbers()])})
        copied = self.inferer.input_slices == "copy"
        new = [len(lattice.interval(number, slices, factor, copied).relative_depths) for number in range(slices)]
        intervals = [sum(map(bool, new[each.first : each.last])) for each in blocks]
        seconds, gpu_memory = _time(lambda: self.inferer(image, self.network), self.device)
        work = f"{sum(new)} new slices of {x} x {y}"
        tiles = sum(each.first == 0 for each in blocks)
        if tiles > 1:
            work += f" in {tiles} tiles of {sizes[0]} x {sizes[1]}"
        if looks > 1 or self.inferer.tta:
            work += f", {TTAPredictor.looks} times over (--tta true)"
        return Cost(work, looks * seconds * sum(intervals) / intervals[0], _memory(), gpu_memory)


class RestorationTrial:
    """Trial of ``generate.yaml``: one batch of XZ slices and one of YZ slices.

    Args:
        network: of stage I, on the device.
        inferer: of the run.
        device: of the run.
    """

    def __init__(self, network: nn.Module, inferer: PseudoVolumeInferer, device: torch.device) -> None:
        self.network = network
        self.inferer = inferer
        self.device = torch.device(device)

    def check(self, header: Header) -> None:
        """Raise InputError where the memory does not suffice for a volume of the header's shape."""
        check_restoration_memory(header.shape, self.inferer.prior_factor)

    def measure(self, header: Header) -> Cost:
        """Cost for a volume of the header's shape."""
        x, y, slices = header.shape
        if self.inferer.prior_factor == 1:
            return Cost("nothing to restore, for k is 1", 0, _memory(math.prod(header.shape), 4), 0)
        z = lattice.output_size(slices, self.inferer.prior_factor)
        batch, done = self.inferer.batch_size, self.inferer.restored_before((x, y))
        seconds = gpu_memory = 0.0
        for side, left in ((x, y - done["xz"]), (y, x - done["yz"])):
            height, width = min(side, _LARGEST_IMAGE), min(z, _LARGEST_IMAGE)
            images = torch.rand(min(batch, max(1, left)), 1, height, width, device=self.device)
            took, gpu = _time(partial(self.inferer.restore, images, self.network), self.device)
            larger = side * z / (height * width)
            seconds += took * larger * max(0, left) / len(images)
            gpu_memory = max(gpu_memory, gpu * larger)
        work = f"{y} XZ and {x} YZ slices, {len(self.inferer.restore.timesteps) - 1} evaluations of the prior each"
        if any(done.values()):
            work += f" ({sum(done.values())} slices were restored before)"
        return Cost(work, seconds, _memory(x * y * z, 9), gpu_memory)  # two orientations, their mean and difference


class TrainingTrial:
    """Trial of ``train_diffusion.yaml`` or ``train.yaml``: a step.

    Args:
        trainer: of the run, with everything that it consists of; the weights of its network are changed.
        cut: the random transforms, which turn {"image": volume} into the items of a batch; None entries are left out.
    """

    def __init__(self, trainer: VolumeTrainer, cut: Sequence[Callable | None]) -> None:
        self.trainer = trainer
        self.network = trainer.network
        self.cut = Compose([transform for transform in cut if transform is not None])
        self.device = torch.device(trainer.state.device)

    def check(self, header: Header) -> None:
        """Raise InputError where no patches can be cut out of a volume of the header's shape."""
        self._cut(header)

    def measure(self, header: Header) -> Cost:
        """Cost for a volume of the header's shape; raises InputError as :meth:`check`, or for the checkpoint of another
        run.
        """
        done = self._epochs_done()
        items, step = self._cut(header), TrainingStep()
        cutting, _ = _time(lambda: self._cut(header), self.device)

        def train(count: int) -> Any:
            return step(self.trainer, list_data_collate(items[:count]))

        each, gpu_memory = math.inf, 0.0
        if self.device.type == "cpu":
            each = len(items) * _time(lambda: train(1), self.device)[0]
        if self.device.type != "cpu" or each < _MOST_SECONDS:  # a step is recorded before it is as fast as it will be
            each, gpu_memory = _time(lambda: train(len(items)), self.device, first=step.warmup_steps + 1)
        max_epochs = self.trainer.state.max_epochs
        steps = max(0, max_epochs - done) * self.trainer.state.epoch_length
        patch = " x ".join(str(side) for side in items[0]["image"].shape[1:3])
        work = f"{steps} steps of {len(items)} patches of {patch}, {cutting + each:.2g} s a step"
        if done:
            work += f" (epochs 1 to {done} of {max_epochs} were done before)"
        voxels = math.prod(header.shape)
        on_gpu = gpu_memory + 8 * voxels if self.device.type == "cuda" else 0
        return Cost(work, steps * (cutting + each), _memory(voxels, 6), on_gpu)

    def _cut(self, header: Header) -> Any:
        """Items of a batch, from a volume of noise."""
        x, y, z = header.shape
        # One plane of noise stands for all: the volume has its true size and takes next to no memory.
        noise = torch.rand(1, x, y, 1, device=self.device).expand(1, x, y, z)
        return self.cut({"image": noise})

    def _epochs_done(self) -> int:
        output = self.trainer.output
        checkpoint = read_checkpoint(output.checkpoint, output.resume_must_match)
        return 0 if checkpoint is None else int(checkpoint["epoch"])


def _time(step: Callable[[], object], device: torch.device, first: int = 1) -> tuple[float, float]:
    """Mean seconds of a step after the ``first`` ones, which prepare what later ones use, and bytes of the GPU at its
    peak.
    """
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)

    def timed() -> float:
        begin = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    taken = [timed() for _ in range(first)]
    if taken[-1] < _TOO_LONG:
        taken = [timed()]
        while sum(taken) < _ENOUGH_SECONDS:
            taken.append(timed())
    return sum(taken) / len(taken), float(torch.cuda.max_memory_allocated(device)) if cuda else 0.0


def _memory(voxels: int = 0, copies: int = 0) -> float:
    """Bytes: the most that this process took up to now, and so many copies of a volume in single precision."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 4.0 * voxels * copies
