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

"""Writing of reconstructions block by block, as a handler of MONAI's evaluator."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from scripts import lattice
from scripts.errors import InputError, warn_once
from scripts.reconstruction.block_dataset import BlockDataset, named_after
from scripts.volumes.background import Background, to_host
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.claim import Claim
from scripts.volumes.factor import why_not_cubic
from scripts.volumes.outputs import check_output, check_space
from scripts.volumes.paths import as_path
from scripts.volumes.volume_block import VOLUME, block_of
from scripts.volumes.writing import stored_dtype, tell_written, volume_writer

# A GPU sends what the file holds, where it knows the type: a quarter of the bytes for 8 bits.
_ON_DEVICE = {"uint8": torch.uint8, "int8": torch.int8, "uint16": torch.uint16, "int16": torch.int16}


class SaveBlocks:
    """Writes the predicted blocks of each volume into its output, whose name appears once it is complete.

    Outputs are claimed and checked when the engine starts, before anything is read. What a block needs to be written
    goes on beside the computation of the next one.

    Args:
        dataset: that the blocks come from.
        output: file of the one volume; or
        output_dir: folder of the outputs, which are named after the volumes: ``IN.tif`` becomes ``IN_x8.tif``.
        overwrite: whether existing outputs may be replaced.
        inputs: further files that are never replaced.
        key: of the prediction.

    Raises:
        InputError: several volumes have one output.
    """

    def __init__(
        self,
        dataset: BlockDataset,
        output: str | os.PathLike | None = None,
        output_dir: str | os.PathLike | None = None,
        overwrite: bool = False,
        inputs: Sequence[str | os.PathLike | None] = (),
        key: str = "pred",
    ) -> None:
        if output is not None and output_dir is not None:
            raise InputError(f"--output {output} and --output_dir {output_dir} both name the output: give one of them")
        if output is not None and len(dataset.data) > 1:
            raise InputError(
                f"--output {output}: {len(dataset.data)} volumes cannot have one output; give --output_dir"
            )
        self.dataset = dataset
        self.output = output
        self.output_dir = output_dir
        self.overwrite = overwrite
        self.inputs = inputs
        self.key = key
        self._outputs: list[Path] = []
        self._claims = ExitStack()
        self._open: dict[int, _Output] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def output_paths(self) -> list[Path]:
        """The output of each volume, in their order.

        Raises:
            InputError: several have the same, or one is in memory and has no name to take.
        """
        if self.output is not None:
            return [as_path(self.output)]
        folder = as_path(self.output_dir)
        if len(self.dataset.volumes) < len(self.dataset.data):
            raise InputError(f"--output_dir {folder}: a volume in memory has no name for its output; give --output")
        paths = [folder / named_after(each.path, each.factor) for each in self.dataset.volumes]
        twice = {path for path in paths if paths.count(path) > 1}
        if twice:
            raise InputError(f"{min(twice)}: would be the output of several volumes; give their folders one by one")
        return paths

    def _start(self, engine: Engine) -> None:
        volumes = self.dataset.volumes
        self._outputs, self._open = self.output_paths(), {}
        inputs = [*(each.path for each in volumes), *self.inputs]
        for path in self._outputs:
            self._claims.enter_context(Claim(path))
            check_output(path, self.overwrite, inputs)
        for path, volume in zip(self._outputs, volumes):
            check_space(path, volume.output_shape, volume.source.header.dtype, volume.factor)
            warning = why_not_cubic(volume.source.header, volume.factor)
            if warning is not None:
                warn_once(warning)

    def _write(self, engine: Engine) -> None:
        for item in engine.state.output:  # type: ignore[union-attr]
            block = item[self.key]
            number = int(block.meta.get(VOLUME, 0))
            if number not in self._open:
                self._open[number] = self._begin(number, block)
            output = self._open[number]
            output.write(block, self._place(number, block))
            if output.left == 0:
                output.close()

    def _begin(self, number: int, block: MetaTensor) -> _Output:
        """Open the output of the volume that a block is of."""
        dtype, unit = str(block.meta.get("dtype", "float32")), str(block.meta.get("unit", "pixel"))
        if VOLUME in block.meta:
            volume = self.dataset.volumes[number]
            shape = volume.output_shape
            affine = lattice.refined_affine(volume.source.header.affine, volume.factor)
        else:  # a volume in memory is one block
            x, y, z = block.shape[-3:]
            shape, affine = (x, y, z), np.asarray(block.affine)
        path = self._outputs[number]
        return _Output(path, shape, dtype, affine, unit, self.overwrite)

    def _place(self, number: int, block: MetaTensor) -> tuple[slice, slice, slice]:
        """Which voxels of the output a block is."""
        part = block_of(block)
        if part is None:
            x, y, z = block.shape[-3:]
            return slice(0, x), slice(0, y), slice(0, z)
        return part.output(self.dataset.volumes[number].factor)

    def _finish(self, engine: Engine) -> None:
        self._claims.close()

    def _abort(self, engine: Engine, error: BaseException) -> None:
        """Leave nothing of an output that is not complete."""
        with self._claims:
            for output in self._open.values():
                output.abort(error)
        raise error


class _Output:
    """An output that is being written."""

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: str, affine: np.ndarray, unit: str, overwrite: bool
    ) -> None:
        self.path, self.shape, self.affine, self.unit = path, shape, affine, unit
        self.left = math.prod(shape)
        stored = stored_dtype(dtype, path)
        self._sent = _ON_DEVICE.get(stored.name, torch.int32 if stored.kind in "ui" else None)
        self._opened = ExitStack()
        self._writer: BlockWriter = self._opened.enter_context(
            volume_writer(path, shape, dtype, affine, unit, overwrite)
        )
        self._background = self._opened.enter_context(Background())

    def write(self, block: MetaTensor, place: tuple[slice, slice, slice]) -> None:
        """Write a block (1, X, Y, Z) at its place."""
        values, sizes = block.as_tensor(), tuple(side.stop - side.start for side in place)
        if len(values) != 1:
            raise InputError(f"{self.path}: a file holds one channel, not {len(values)}; write each on its own")
        if tuple(values.shape[1:]) != sizes:
            raise InputError(
                f"{self.path}: postprocessing made {tuple(values.shape[1:])} voxels of a block of {sizes}; leave the "
                "shape as it is"
            )
        begin = [side.start for side in place]
        if self._sent is not None:
            values = values.to(self._sent)
        arrive = to_host(values[0].movedim((0, 2), (2, 0)).contiguous())  # in the order of the file
        self._background.run(lambda: self._writer.write(arrive().numpy().transpose(2, 1, 0), *begin))
        self.left -= math.prod(sizes)

    def close(self) -> None:
        """Finish what is still to be written; the file appears under its name."""
        self._opened.close()
        tell_written(self.path, self.shape, self.affine, self.unit)

    def abort(self, error: BaseException) -> None:
        """Drop what was written, if the file is not complete."""
        self._opened.__exit__(type(error), error, error.__traceback__)
