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

"""The output of a reconstruction while it is written: a file, or a store that an interrupted run can continue."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.lattice import Box, Turn
from scripts.reconstruction.unfinished_store import UnfinishedStore
from scripts.volumes.background import Background, to_host
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.box_assembler import BoxAssembler
from scripts.volumes.header import Header
from scripts.volumes.writing import stored_dtype, tell_written, volume_writer

# A GPU sends what the file holds, where it knows the type: a quarter of the bytes for 8 bits.
_ON_DEVICE = {"uint8": torch.uint8, "int8": torch.int8, "uint16": torch.uint16, "int16": torch.int16}
# threads that compress and write boxes of a store; each has a box in memory
_WRITERS = max(1, min(8, (os.cpu_count() or 1) // 2))


class Output(Protocol):
    """Takes the blocks of a reconstruction."""

    left: int
    """Voxels that are still to come."""

    def write(self, block: MetaTensor, place: tuple[slice, slice, slice]) -> None:
        """Write a block (1, X, Y, Z) at its place, beside the computation of the next one."""

    def close(self) -> None:
        """Finish what is still to be written; the output appears under its name."""

    def abort(self, error: BaseException) -> None:
        """Stop writing. Of a file nothing is left; what is finished of a store stays for the next run."""


def in_file(header: Header, factor: float) -> tuple[Turn, tuple[int, int, int], np.ndarray]:
    """How what was made of a volume lies in its file.

    Args:
        header: of the volume.
        factor: how many times finer Z became.

    Returns:
        The turn that made the volume of the file, and the shape (x, y, z) and the affine of the file that is written.
    """
    turn, refined = Turn.of(header.axis), header.refined(factor)
    return turn, turn.to_file(refined.shape), turn.affine_of_file(refined.affine)


class FileOutput:
    """
    A file that appears once it is complete.

    Args:
        path: of the output.
        shape: number of voxels (x, y, z).
        dtype: of the volume.
        affine: 4x4.
        unit: of the affine.
        overwrite: see :func:`scripts.volumes.writing.volume_writer`.
        turn: that made the volume of the file; shape and affine are those of the file that is written.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: str,
        affine: np.ndarray,
        unit: str,
        overwrite: bool,
        turn: Turn,
    ) -> None:
        self._turn = turn
        self.path, self.shape, self.affine, self.unit = path, shape, affine, unit
        self.left = math.prod(shape)
        self._dtype = stored_dtype(dtype, path)
        self._opened = ExitStack()
        self._writer: BlockWriter = self._opened.enter_context(
            volume_writer(path, shape, dtype, affine, unit, overwrite)
        )
        self._background = self._opened.enter_context(Background())

    def write(self, block: MetaTensor, place: tuple[slice, slice, slice]) -> None:
        """See :meth:`Output.write`."""
        self.left -= _send(block, place, self._dtype, self.path, self._background, self._writer, self._turn)

    def close(self) -> None:
        """See :meth:`Output.close`."""
        self._opened.close()
        tell_written(self.path, self.shape, self.affine, self.unit)

    def abort(self, error: BaseException) -> None:
        """See :meth:`Output.abort`."""
        self._opened.__exit__(type(error), error, error.__traceback__)


class StoreOutput:
    """
    A store that is made box by box, each of which is in a ledger once it is finished.

    Args:
        store: which has begun.
        shape, dtype, affine, unit, turn: as of :class:`FileOutput`.
        todo: the boxes that are still to be made.
        replace: see :func:`scripts.volumes.whole_file.move_whole`.
    """

    def __init__(
        self,
        store: UnfinishedStore,
        shape: tuple[int, int, int],
        dtype: str,
        affine: np.ndarray,
        unit: str,
        todo: list[Box],
        replace: bool,
        turn: Turn,
    ) -> None:
        self._turn = turn
        self.store, self.shape, self.affine, self.unit, self.replace = store, shape, affine, unit, replace
        self.left = sum(math.prod(box.sizes) for box in todo)
        self._dtype = stored_dtype(dtype, store.path)
        self._opened = ExitStack()
        writers = self._opened.enter_context(Background(_WRITERS))
        self._background = self._opened.enter_context(Background())
        self._assembler = BoxAssembler(
            todo, self._dtype, lambda box, voxels: writers.run(lambda: store.write(box, voxels))
        )
        self._measured = False

    def write(self, block: MetaTensor, place: tuple[slice, slice, slice]) -> None:
        """See :meth:`Output.write`."""
        if not self._measured:
            self.store.remember(_intensity_in(block.meta))
            self._measured = True
        self.left -= _send(block, place, self._dtype, self.store.path, self._background, self._assembler, self._turn)

    def close(self) -> None:
        """See :meth:`Output.close`."""
        self._opened.close()
        self.store.complete(self.replace)
        tell_written(self.store.path, self.shape, self.affine, self.unit)

    def abort(self, error: BaseException) -> None:
        """See :meth:`Output.abort`."""
        self._opened.__exit__(type(error), error, error.__traceback__)


def _send(
    block: MetaTensor,
    place: tuple[slice, slice, slice],
    dtype: np.dtype,
    path: Path,
    background: Background,
    writer: BlockWriter,
    turn: Turn,
) -> int:
    """Give a block (1, X, Y, Z) to a writer, in the background; return how many voxels it has."""
    values, sizes = block.as_tensor(), tuple(side.stop - side.start for side in place)
    if len(values) != 1:
        raise InputError(f"{path}: a file holds one channel, not {len(values)}; write each on its own")
    if tuple(values.shape[1:]) != sizes:
        raise InputError(
            f"{path}: postprocessing made {tuple(values.shape[1:])} voxels of a block of {sizes}; leave the shape as "
            "it is"
        )
    sent = _ON_DEVICE.get(dtype.name, torch.int32 if dtype.kind in "ui" else None)
    if sent is not None:
        values = values.to(sent)
    arrive = to_host(values[0].movedim((0, 2), (2, 0)).contiguous())  # in the order of the file
    begin = turn.to_file([side.start for side in place])
    background.run(lambda: writer.write(arrive().numpy().transpose(2, 1, 0).transpose(turn.back), *begin))
    return math.prod(sizes)


def _intensity_in(meta: Mapping[str, Any]) -> dict[str, float]:
    """The intensity scale that a block was computed with, as far as its meta data say it."""
    names = ("intensity_low", "intensity_high", "value_min", "value_max")
    return {name: float(np.ravel(meta[name])[0]) for name in names if name in meta}
