# SPDX-License-Identifier: Apache-2.0
"""A volume of which every voxel tells its place, so that no mistake in the order of axes goes unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import VolumeSource
from scripts.volumes.writing import volume_writer

Wrong = tuple[Callable[[Path], Any], dict[str, Any], tuple[str, ...]]
"""What writes a file that cannot be read, how it is read, and words of the line that says why."""

SHAPE = (7, 6, 5)
"""Number of voxels (x, y, z)."""


def coded(dtype: str = "uint16", shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Voxels (x, y, z) of x + 8 y + 48 z, modulo 251 in 8 bits; negative ones where the type has them."""
    x, y, z = np.indices(shape)
    values = x + 8 * y + 48 * z
    kind = np.dtype(dtype)
    values = values % (251 if kind == np.uint8 else 127) if kind.itemsize == 1 else values
    if kind.kind in "if":
        values = values - (60 if kind.itemsize == 1 else 100)
    return values.astype(kind)


def read_all(path: Path, **how: Any) -> tuple[np.ndarray, VolumeSource]:
    """The voxels of a file as a block, which have to be those of its slices, and the source, which is closed."""
    with VolumeSource(path, ReadOptions(**how)) as source:
        width, height, depth = source.header.shape
        block = source.read_block(slice(0, width), slice(0, height), range(depth))
        np.testing.assert_array_equal(np.stack([source.read(z) for z in range(depth)], axis=-1), block)
        part = source.read_block(slice(1, 4), slice(2, 4), [0, 1, 1])
        np.testing.assert_array_equal(part, block[1:4, 2:4][:, :, [0, 1, 1]])
    return block, source


def assert_read(path: Path, voxels: np.ndarray, size: Any, unit: str, origin: Any = (0, 0, 0), **how: Any) -> None:
    """A file has these voxels (x, y, z), in any byte order, with that voxel size and origin (x, y, z)."""
    block, source = read_all(path, **how)
    np.testing.assert_array_equal(block, voxels)
    assert source.header.dtype == voxels.dtype.newbyteorder("=").name
    np.testing.assert_allclose(source.header.voxel_size, size, rtol=1e-6)
    np.testing.assert_allclose(source.header.affine[:3, 3], origin, rtol=1e-6, atol=1e-9)
    assert source.header.unit == unit


def assert_refused(path: Path, *words: str, **how: Any) -> None:
    """Reading of a file ends in one line that has these words."""
    with pytest.raises(InputError) as error:
        read_all(path, **how)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def write_in_parts(path: Path, voxels: np.ndarray, affine: Any, unit: str) -> None:
    """Write a volume in blocks that fit no chunk, the last ones first."""
    width, height, depth = voxels.shape
    with volume_writer(
        path, (width, height, depth), voxels.dtype.name, np.asarray(affine, dtype=float), unit
    ) as writer:
        for z in reversed(range(0, depth, 3)):
            for y in range(0, height, 4):
                for x in (width // 2, 0):
                    part = voxels[x : width if x else width // 2, y : y + 4, z : z + 3]
                    writer.write(part, x, y, z)
