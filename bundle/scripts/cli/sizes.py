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

"""Refuses, before the work begins, sizes that neither the memory nor the disk holds."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from humanize import naturalsize
from scripts import lattice
from scripts.diffusion.room import check_restoration_memory, restored_shape, room_for
from scripts.errors import InputError
from scripts.lattice import Turn
from scripts.volumes.formats.ome_zarr_writer import DEFAULT_LAYOUT, Layout, block_of, check_sizes
from scripts.volumes.formats.registry import is_store
from scripts.volumes.memory import check_memory
from scripts.volumes.outputs import check_space, free_space
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import Header, read_header
from scripts.volumes.writing import stored_dtype

# Bytes of memory at least, for each voxel
_READ = 4  # single precision
_BLURRED = 12  # a volume in single precision, the same with its ends repeated, and the result


def check_store(
    header: Header,
    output: str | os.PathLike,
    factor: float,
    layout: Layout = DEFAULT_LAYOUT,
    block: Sequence[int] | None = None,
) -> None:
    """
    Check that an output which is a store can be cut into blocks.

    Args:
        header: of the volume.
        output: of any format.
        factor: how many times finer Z becomes.
        layout, block: as of :class:`scripts.reconstruction.save_blocks.SaveBlocks`.

    Raises:
        InputError: a block does not hold whole shards.
    """
    if is_store(as_path(output)):
        shape = Turn.of(header.axis).to_file(header.refined(factor).shape)
        block_of(check_sizes(block, "block"), layout, shape)


def check_restoration(header: Header, output: str | os.PathLike, prior_factor: float) -> None:
    """
    Check that memory and disk have room for stage II.

    Args:
        header: of the volume.
        output: the pseudo-HR volume, beside which the others lie.
        prior_factor: k; nothing is restored with 1.

    Raises:
        InputError: one of them has not.
    """
    if prior_factor == 1:
        return
    check_restoration_memory(header.shape, prior_factor)
    volumes = 2 * math.prod(restored_shape(header.shape, prior_factor)) * stored_dtype(header.dtype, output).itemsize
    needed, free = room_for(header.shape, prior_factor).disk + volumes, free_space(output)
    if needed > free:
        raise InputError(
            f"--prior_factor {prior_factor:g}: stage II would need {naturalsize(needed, binary=True)} and "
            f"{naturalsize(free, binary=True)} are free where {output} is to be: give a lower one, or cut the volume"
        )


def check_decimation(
    volume: str | os.PathLike,
    output: str | os.PathLike,
    factor: float,
    degradation: str = "sampling",
    reading: ReadOptions = AS_STORED,
) -> None:
    """
    Check that at least two slices of a volume are kept, and that memory has room for it and the disk for the result.

    Raises:
        InputError: one of these fails.
    """
    factor = lattice.check_factor(factor)
    header = read_header(volume, reading)
    x, y, slices = header.shape
    kept = lattice.decimated_indices(slices, factor)
    if len(kept) < 2:
        raise InputError(
            f"--factor {factor:g}: leaves a single one of the {slices} slices of {volume}; give at most {slices - 1}"
        )
    check_memory(
        (_READ if degradation == "sampling" else _BLURRED) * math.prod(header.shape),
        f"{volume}: needs",
        "cut the volume",
    )
    check_space(output, (x, y, len(kept)), header.dtype, factor)
