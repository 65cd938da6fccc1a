# SPDX-License-Identifier: Apache-2.0
"""Volumes in files of every kind, for the tests of reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from PIL import Image
from scripts.errors import InputError
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import read_volume

SHAPE = (5, 6, 7)  # (z, y, x)

UNITS = ("nanometer", "micrometer", "millimeter", "pixel")


def stack(dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Voxels in the order of the files, no two slices, rows or columns alike; both limits of the dtype are there."""
    kind = np.dtype(dtype)
    generator = np.random.default_rng(0)
    if kind.kind == "f":
        return generator.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    low, high = max(limits.min, -(2**20)), min(limits.max, 2**20)
    array = generator.integers(low, high, shape, kind, endpoint=True)
    array.flat[0], array.flat[-1] = low, high
    return array


def volume(dtype: str = "uint8", sizes: tuple[float, ...] = (0.26, 0.27, 0.5), unit: str = "micrometer") -> MetaTensor:
    voxels = torch.from_numpy(stack(dtype).transpose(2, 1, 0).astype(np.float32).copy())[None]
    meta = {"unit": unit, "dtype": dtype}
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64)), meta=meta)


def sizes_of(loaded: MetaTensor) -> np.ndarray:
    return np.linalg.norm(np.asarray(loaded.affine)[:3, :3], axis=0)


def assert_in_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def expect_refusal(path: Path, *words: str, spacing: object = None, axes: object = None) -> None:
    with pytest.raises(InputError) as error:
        read_volume(path, ReadOptions(spacing, axes))  # type: ignore[arg-type]
    assert_in_one_line(error, *words)


def save_slices(folder: Path, names: Sequence[str]) -> dict[int, str]:
    """Save slices of which the first voxel tells the name, which is returned by that."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        page = stack()[0].copy()
        page[0, 0] = index
        Image.fromarray(page).save(folder / name)
    return dict(enumerate(names))


def write_plain(path: Path) -> None:
    tifffile.imwrite(path, stack(), metadata=None)


def write_one_by_one(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in stack():
            writer.write(page, metadata=None, compression="zlib")


def write_shaped(path: Path) -> None:
    tifffile.imwrite(path, stack())
