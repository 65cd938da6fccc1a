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

"""What a run takes in time and memory: measured in a few of its steps, on noise in place of the volume."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from monai.transforms import Compose
from scripts import lattice
from scripts.diffusion.room import room_for
from scripts.reconstruction.block_dataset import OUTPUT_VOXELS
from scripts.reconstruction.predictor import TTAPredictor
from scripts.training.checkpoint import read_checkpoint
from scripts.training.keep_volume import KeepVolume
from scripts.training.step import TrainingStep
from scripts.training.trainer import VolumeTrainer
from scripts.volumes.factor import factor_of
from scripts.volumes.reading import Header
from scripts.volumes.volume_block import BLOCK
from torch import nn
from torch.utils.benchmark import Timer

_WARMUP = 3  # steps on a GPU before one is recorded, which is faster
_ENOUGH_SECONDS = 0.4  # a step is repeated until it has taken as long
_MOST_SECONDS = 10.0  # on a CPU, for a step; of a longer one only a single item is computed
_LARGEST_IMAGE = 512  # side of an image of stage II; of larger ones the time grows with the pixels


class Cost(NamedTuple):
    """What a run takes: work in words, seconds without start and files, bytes of main memory and of the GPU.

    The main memory is what comes on top of that of the trial.
    """

    work: str
    seconds: float
    memory: float
    gpu_memory: float


@dataclass
class Trial:
    """Makes a few steps of a run with the objects of the run.

    Args:
        network: on the device; a training changes its weights.
        inferer: of the run.
        device: of the run.
    """

    network: nn.Module
    inferer: Any
    device: torch.device

    def check(self, header: Header) -> None:
        """Raise InputError where the run cannot work on a volume of the header's shape."""

    def measure(self, header: Header) -> Cost:
        """Cost for a volume of the header's shape; raises InputError as :meth:`check`."""
        raise NotImplementedError

    def _time(self, step: Callable[[int], object], items: int) -> tuple[float, float]:
        """Mean seconds of a step of this many items, without the first step, and peak bytes of the GPU."""
        cuda = torch.device(self.device).type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            for _ in range(_WARMUP):
                step(items)

        def mean(count: int) -> float:
            wait = partial(torch.cuda.synchronize, self.device) if cuda else int
            names = {"step": step, "count": count, "wait": wait}
            timer = Timer("step(count); wait()", globals=names, num_threads=torch.get_num_threads())
            return timer.blocked_autorange(min_run_time=_ENOUGH_SECONDS).mean

        if not cuda and items > 1 and (seconds := items * mean(1)) > _MOST_SECONDS:
            return seconds, 0
        return mean(items), torch.cuda.max_memory_allocated(self.device) if cuda else 0


class ReconstructionTrial(Trial):
    """Trial of ``inference.yaml``: a block."""

    def measure(self, header: Header) -> Cost:
        inferer, device, (x, y, slices) = copy.copy(self.inferer), torch.device(self.device), header.shape
        inferer.factor = factor_of(header, inferer.factor, inferer.target_spacing)
        inferer.target_spacing, inferer.progress = None, False
        voxels = OUTPUT_VOXELS["cuda"] if device.type == "cuda" else 0
        blocks = inferer.blocks(header.shape, inferer.factor, self.network, device, voxels)
        sizes = [side.stop - side.start for side in blocks[0].input]
        image = MetaTensor(torch.rand(1, 1, *sizes, device=device), meta={BLOCK: torch.tensor([blocks[0].numbers()])})
        looks, copied = TTAPredictor.looks if inferer.tta else 1, inferer.input_slices == "copy"

        def look(count: int) -> None:
            inferer.tta = count > 1
            inferer(image, self.network)

        seconds, gpu_memory = self._time(look, looks)
        new = [len(lattice.interval(place, slices, inferer.factor, copied).relative_depths) for place in range(slices)]
        intervals = [sum(map(bool, new[block.first : block.last])) for block in blocks]
        tiles = sum(block.first == 0 for block in blocks)
        work = f"{sum(new)} new slices of {x} x {y}"
        work += f" in {tiles} tiles of {sizes[0]} x {sizes[1]}" if tiles > 1 else ""
        work += f", {looks} times over (--tta true)" if looks > 1 else ""
        return Cost(work, seconds * sum(intervals) / intervals[0], 0, gpu_memory)


class RestorationTrial(Trial):
    """Trial of ``generate.yaml``: a batch of XZ slices and one of YZ slices."""

    def measure(self, header: Header) -> Cost:
        (x, y, z), restore = header.refined(self.inferer.prior_factor).shape, self.inferer.restore
        if self.inferer.prior_factor == 1:
            return Cost("nothing to restore, for k is 1", 0, 0, 0)
        done, seconds, gpu_memory = self.inferer.restored_before((x, y)), 0.0, 0.0
        for across, left in ((x, y - done["xz"]), (y, x - done["yz"])):
            count, sizes = min(self.inferer.batch_size, max(1, left)), [
                min(_LARGEST_IMAGE, side) for side in (across, z)
            ]
            images = torch.rand(count, 1, *sizes, device=self.device)
            took, gpu = self._time(lambda items: restore(images[:items], self.network), count)
            larger = across * z / math.prod(sizes)
            seconds, gpu_memory = seconds + took * larger * left / count, max(gpu_memory, gpu * larger)
        work = f"{y} XZ and {x} YZ slices, {len(restore.timesteps) - 1} evaluations of the prior each"
        work += f" ({sum(done.values())} slices were restored before)" if any(done.values()) else ""
        return Cost(work, seconds, room_for(header.shape, self.inferer.prior_factor).memory, gpu_memory)


class TrainingTrial(Trial):
    """Trial of ``train_diffusion.yaml`` or ``train.yaml``: a step.

    Args:
        trainer: of the run, with everything that it consists of; the weights of its network are changed.
        cut: the random transforms, which turn {"image": volume} into the items of a batch.
        keep: reads the volume, and knows where its voxels are kept.
        validation_cut: the same of the validation, where that is on the same volume.
    """

    def __init__(
        self, trainer: VolumeTrainer, cut: Sequence[Callable], keep: KeepVolume, validation_cut: Sequence[Callable] = ()
    ) -> None:
        super().__init__(trainer.network, trainer.inferer, trainer.state.device)
        self.trainer, self.cut, self.keep, self.validation_cut = trainer, Compose(cut), keep, Compose(validation_cut)

    def check(self, header: Header) -> None:
        self.keep.room(header)
        for cut in (self.cut, self.validation_cut):
            self._cut(header, cut)()

    def measure(self, header: Header) -> Cost:
        state, done, cut, step = self.trainer.state, self._epochs_done(), self._cut(header, self.cut), TrainingStep()
        items = cut()
        seconds, gpu_memory = self._time(lambda count: step(self.trainer, list_data_collate(cut()[:count])), len(items))
        steps = max(0, state.max_epochs - done) * state.epoch_length
        patch, room = " x ".join(str(side) for side in items[0]["image"].shape[1:3]), self.keep.room(header)
        work = f"{steps} steps of {len(items)} patches of {patch}, {seconds:.2g} s a step"
        work += f" (epochs 1 to {done} of {state.max_epochs} were done before)" if done else ""
        work += f", the voxels {room.in_words()}"
        return Cost(work, steps * seconds, room.memory, gpu_memory + room.gpu_memory)

    def _cut(self, header: Header, cut: Callable) -> Callable[[], Any]:
        """What makes the items of a batch, of a volume of the true size in which one plane of noise stands for all."""
        x, y, z = header.shape
        return partial(cut, {"image": torch.rand(1, x, y, 1, device=self.device).expand(1, x, y, z)})

    def _epochs_done(self) -> int:
        output = self.trainer.output
        checkpoint = read_checkpoint(output.checkpoint, output.resume_must_match)
        return 0 if checkpoint is None else int(checkpoint["epoch"])
