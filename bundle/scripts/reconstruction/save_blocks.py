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

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from scripts.errors import InputError, warn_once
from scripts.lattice import Box, Turn
from scripts.reconstruction.block_dataset import BlockDataset, named_after
from scripts.reconstruction.outputs import FileOutput, Output, StoreOutput, in_file
from scripts.reconstruction.slice_table import SliceTable
from scripts.reconstruction.unfinished_store import UnfinishedStore
from scripts.volumes.claim import Claim, there_at_start
from scripts.volumes.factor import why_not_cubic
from scripts.volumes.formats.ome_zarr_writer import DEFAULT_LAYOUT, Layout, check_sizes
from scripts.volumes.formats.registry import is_store
from scripts.volumes.identity import identify_source
from scripts.volumes.outputs import check_output, check_space, check_store_options
from scripts.volumes.paths import as_path
from scripts.volumes.volume_block import VOLUME, block_of
from scripts.volumes.writing import stored_dtype

logger = logging.getLogger(__name__)


class SaveBlocks:
    """Writes the predicted blocks of each volume into its output, whose name appears once it is complete.

    Outputs are claimed and checked when the engine starts, before anything is read. A block is converted and written
    while the next one is computed.

    Args:
        dataset: that the blocks come from.
        output: file of the one volume; or
        output_dir: folder of the outputs, which are named after the volumes and have their formats: ``IN.tif`` becomes
            ``IN_x8.tif``, see :func:`scripts.reconstruction.block_dataset.named_after`.
        overwrite: whether existing outputs may be replaced.
        inputs: further files that are never replaced.
        layout: of the outputs that are stores, see :func:`scripts.volumes.formats.ome_zarr_writer.check_layout`.
        block: voxels (z, y, x) of a store that are computed and written as a whole; None for a shard.
        store_options: the options that ``layout`` and ``block`` are from, None where one was not given; they are refused
            where no output is a store.
        resume_must_match: what the voxels depend on beside the volume and its factor; a store that was begun with
            something else is refused.
        slice_table: file that says where the input slices are in the output, see
            :class:`scripts.reconstruction.slice_table.SliceTable`.
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
        layout: Layout = DEFAULT_LAYOUT,
        block: Sequence[int] | None = None,
        store_options: Mapping[str, Any] | None = None,
        resume_must_match: Mapping[str, Any] | None = None,
        slice_table: str | os.PathLike | None = None,
        key: str = "pred",
    ) -> None:
        if output is not None and output_dir is not None:
            raise InputError(f"--output {output} and --output_dir {output_dir} both name the output: give one of them")
        if output is not None and len(dataset.data) > 1:
            raise InputError(
                f"--output {output}: {len(dataset.data)} volumes cannot have one output; give --output_dir"
            )
        if slice_table is not None and len(dataset.data) > 1:
            raise InputError(
                f"--slice_table {slice_table}: {len(dataset.data)} volumes cannot have one table; reconstruct them one "
                "by one"
            )
        self.dataset = dataset
        self.output = output
        self.slice_table = slice_table
        self.output_dir = output_dir
        self.overwrite = overwrite
        self.inputs = inputs
        self.layout = layout
        self.block = check_sizes(block, "block")
        self.store_options = dict(store_options or {})
        self.resume_must_match = dict(resume_must_match or {})
        self.key = key
        self._outputs: list[Path] = []
        self._table: SliceTable | None = None
        self._claims = ExitStack()
        self._open: dict[int, Output] = {}

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def output_paths(self) -> list[Path]:
        """The output of each volume, in their order.

        Raises:
            InputError: several have the same, one is in memory and has no name to take, or none is a store and an
                option of stores is given.
        """
        paths = self._named_outputs()
        check_store_options(paths, self.store_options)
        return paths

    def _named_outputs(self) -> list[Path]:
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
        if self.slice_table is not None:
            self._table = self._slice_table(self.slice_table)
            self._table.check(self.overwrite, [*inputs, *self._outputs])
        for path in self._outputs:
            self._claims.enter_context(Claim(path))
            check_output(path, self.overwrite, inputs)
        for path, volume in zip(self._outputs, volumes):
            check_space(path, volume.output_shape, volume.source.header.dtype, volume.factor)
            warning = why_not_cubic(volume.source.header, volume.factor)
            if warning is not None:
                warn_once(warning)
        stores = [number for number, path in enumerate(self._outputs[: len(volumes)]) if is_store(path)]
        for number in stores:
            self._open[number] = self._go_on(number)
        if stores:
            self._leave_out_what_is_done(engine)

    def _slice_table(self, path: str | os.PathLike) -> SliceTable:
        if not self.dataset.volumes:
            raise InputError(f"--slice_table {path}: is made of a volume that is a file, not of one in memory")
        volume, copied = self.dataset.volumes[0], self.dataset.inferer.input_slices == "copy"
        return SliceTable(path, volume.source.header.shape[2], volume.factor, copied)

    def _complete(self, output: Output) -> None:
        """Give an output its name, after the table that belongs to it."""
        if self._table is not None:
            self._table.write()
        output.close()

    def _go_on(self, number: int) -> StoreOutput:
        """Begin a store, or go on with an unfinished one, and have the dataset yield the blocks that it lacks."""
        path, volume = self._outputs[number], self.dataset.volumes[number]
        header = volume.source.header
        turn, shape, affine = in_file(header, volume.factor)
        dtype = stored_dtype(header.dtype, path)
        store = UnfinishedStore(path, shape, dtype, affine, header.unit, self.layout, self.block)
        tile, depth_batch = self.dataset.cut_alike(number, store.recorded("tile"), store.recorded("depth_batch"))
        store.begin(
            {
                **self.resume_must_match,
                "factor": volume.factor,
                "tile": tile,
                "depth_batch": depth_batch,
                "layout": self.layout._asdict(),
                "block": store.block,
                "volume": partial(identify_source, volume.source),  # last, for to compare it is to read it
            },
            anew=self.overwrite,
        )
        done = store.finished()
        todo = [box for box in store.boxes() if box not in done]
        if done:
            logger.info(f"{path}: {len(done)} of {len(done) + len(todo)} blocks are finished already")
        self.dataset.cut(number, [Box(*turn.to_volume(box)) for box in todo])
        replace = self.overwrite or there_at_start(path)
        return StoreOutput(store, shape, header.dtype, affine, header.unit, todo, replace, turn)

    def _leave_out_what_is_done(self, engine: Engine) -> None:
        engine.state.epoch_length = len(self.dataset)
        for output in self._open.values():
            if output.left == 0:
                self._complete(output)
        if len(self.dataset) == 0:
            engine.terminate()

    def _write(self, engine: Engine) -> None:
        for item in engine.state.output:  # type: ignore[union-attr]
            block = item[self.key]
            number = int(block.meta.get(VOLUME, 0))
            if number not in self._open:
                self._open[number] = self._begin(number, block)
            output = self._open[number]
            output.write(block, self._place(number, block))
            if output.left == 0:
                self._complete(output)

    def _begin(self, number: int, block: MetaTensor) -> FileOutput:
        """Open the file of the volume that a block is of."""
        dtype, unit = str(block.meta.get("dtype", "float32")), str(block.meta.get("unit", "pixel"))
        if VOLUME in block.meta:
            volume = self.dataset.volumes[number]
            turn, shape, affine = in_file(volume.source.header, volume.factor)
        else:  # a volume in memory is one block
            x, y, z = block.shape[-3:]
            turn = Turn.of(str(block.meta.get("axis", "z")))
            shape, affine = turn.to_file((x, y, z)), turn.affine_of_file(np.asarray(block.affine))
        return FileOutput(self._outputs[number], shape, dtype, affine, unit, self.overwrite, turn)

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
