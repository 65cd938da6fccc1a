# SPDX-License-Identifier: Apache-2.0
"""Refuses, before the work begins, sizes that neither the memory nor the disk holds."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from humanize import naturalsize

from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.memory import check_memory
from scripts.volumes.outputs import check_space, free_space
from scripts.volumes.reading import read_header
from scripts.volumes.writing import stored_dtype

# Bytes of memory at least, for each voxel
_READ = 4  # single precision
_BLURRED = 12  # a volume in single precision, the same with its ends repeated, and the result
_RESTORED = 16  # volume and disagreement of stage II, and their copies for the files
_KEPT = 4  # on disk, by stage II until it is finished: two orientations in half precision


def check_reconstruction(
    volume: str | os.PathLike,
    output: str | os.PathLike,
    factor: float,
    spacing: Sequence[float] | None = None,
    axes: str | None = None,
) -> None:
    """
    Check that the disk has room for a volume with ``factor`` times finer Z.

    Raises:
        InputError: it has not.
    """
    header = read_header(volume, spacing, axes)
    x, y, slices = header.shape
    check_space(output, (x, y, lattice.output_size(slices, factor)), header.dtype, factor)


def check_restoration(
    volume: str | os.PathLike,
    output: str | os.PathLike,
    prior_factor: float,
    spacing: Sequence[float] | None = None,
    axes: str | None = None,
) -> None:
    """
    Check that memory and disk have room for stage II.

    Args:
        volume, spacing, axes: the options.
        output: the pseudo-HR volume, beside which the others lie.
        prior_factor: k; nothing is restored with 1.

    Raises:
        InputError: one has not.
    """
    if prior_factor == 1:
        return
    header = read_header(volume, spacing, axes)
    x, y, slices = header.shape
    voxels = x * y * lattice.output_size(slices, prior_factor)
    what, advice = f"--prior_factor {prior_factor:g}: stage II would need", "give a lower one, or cut the volume"
    check_memory(_RESTORED * voxels, what, advice)
    needed, free = voxels * (_KEPT + 2 * stored_dtype(header.dtype).itemsize), free_space(output)
    if needed > free:
        raise InputError(
            f"{what} {naturalsize(needed, binary=True)} and {naturalsize(free, binary=True)} are free where {output} is to be: {advice}"
        )


def check_decimation(
    volume: str | os.PathLike,
    output: str | os.PathLike,
    factor: float,
    degradation: str = "sampling",
    spacing: Sequence[float] | None = None,
    axes: str | None = None,
) -> None:
    """
    Check that at least two slices are left of a volume, that memory holds it and the disk what is left.

    Raises:
        InputError: one is not so.
    """
    factor = lattice.check_factor(factor)
    header = read_header(volume, spacing, axes)
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
