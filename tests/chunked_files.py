# SPDX-License-Identifier: Apache-2.0
"""Volumes in zarr, N5 and precomputed, written by zarr-python or by hand from the specifications."""

from __future__ import annotations

import gzip
import itertools
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from scripts.volumes.read_options import ReadOptions
from scripts.volumes.reading import VolumeSource

SHAPE = (5, 6, 7)  # (z, y, x)


def coded(dtype: str = "uint16") -> np.ndarray:
    """Voxels (z, y, x) that tell their place: x + 8 y + 48 z, which every type of voxel holds."""
    z, y, x = np.indices(SHAPE)
    return (x + 8 * y + 48 * z).astype(dtype)


def assert_coded(path: Path, **how: Any) -> None:
    """Every voxel is at its place, in slices and in boxes across the borders of chunks."""
    with VolumeSource(path, ReadOptions(**how)) as source:
        assert source.header.shape == SHAPE[::-1]
        truth = coded(source.header.dtype).transpose(2, 1, 0)
        for index in range(SHAPE[0]):
            np.testing.assert_array_equal(source.read(index), truth[:, :, index])
        box = source.read_block(slice(1, 6), slice(2, 5), [1, 2, 3])
        np.testing.assert_array_equal(box, truth[1:6, 2:5, 1:4])
        np.testing.assert_array_equal(source.read_block(slice(3, 4), slice(0, 6), [4, 4, 0]), truth[3:4, :, [4, 4, 0]])


def read_voxels(path: Path) -> np.ndarray:
    """Voxels (x, y) of the first slice and of the last."""
    with VolumeSource(path) as source:
        return np.stack([source.read(index) for index in (0, source.header.shape[2] - 1)])


def voxel_size(path: Path, **how: Any) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Voxel size and position of the first voxel, both (x, y, z), and their unit."""
    with VolumeSource(path, ReadOptions(**how)) as source:
        header = source.header
    return (
        tuple(float(each) for each in np.round(header.voxel_size, 9)),
        tuple(float(each) for each in np.round(header.affine[:3, 3], 9)),
        header.unit,
    )


def write_zarr(
    path: Path,
    voxels: np.ndarray | None = None,
    version: Literal[2, 3] = 2,
    attributes: dict[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
    **more: Any,
) -> Path:
    """Write an array with zarr-python."""
    voxels = coded() if voxels is None else voxels
    layout = {"chunks": tuple(chunks or (2, 3, 4)[-voxels.ndim :]), "config": {"write_empty_chunks": True}, **more}
    array = zarr.create_array(
        str(path), shape=voxels.shape, dtype=voxels.dtype, zarr_format=version, attributes=attributes or {}, **layout
    )
    array[...] = voxels
    return path


def write_json(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def write_group(path: Path, attributes: dict[str, Any], version: int = 2) -> Path:
    """Write the metadata of a zarr group by hand."""
    if version == 2:
        write_json(path / ".zgroup", {"zarr_format": 2})
        write_json(path / ".zattrs", attributes)
    else:
        write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return path


def write_n5(
    path: Path,
    attributes: dict[str, Any] | None = None,
    voxels: np.ndarray | None = None,
    compression: str = "gzip",
    block: Sequence[int] = (4, 3, 2),
) -> Path:
    """Write an N5 array by hand: the axes of the voxels, the slowest first, are its dimensions in reverse."""
    voxels = coded() if voxels is None else voxels
    sizes = voxels.shape[::-1]
    layout = {
        "dimensions": list(sizes),
        "blockSize": list(block),
        "dataType": voxels.dtype.newbyteorder("=").name,
        "compression": {"type": compression},
    }
    write_json(path / "attributes.json", {**layout, **(attributes or {})})
    for place in itertools.product(*(range(-(-size // edge)) for size, edge in zip(sizes, block))):
        inside = tuple(slice(at * edge, min(size, (at + 1) * edge)) for at, edge, size in zip(place, block, sizes))
        part = voxels[inside[::-1]]
        content = part.astype(voxels.dtype.newbyteorder(">")).tobytes()
        header = struct.pack(f">HH{part.ndim}I", 0, part.ndim, *part.shape[::-1])
        file = path.joinpath(*map(str, place))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(header + (gzip.compress(content) if compression == "gzip" else content))
    return path


def scale_of(key: str = "4_4_40", begin: Sequence[int] = (0, 0, 0), **more: Any) -> dict[str, Any]:
    """A scale of the volume for :func:`write_precomputed`."""
    return {
        "key": key,
        "size": list(SHAPE[::-1]),
        "resolution": [4, 4, 40],
        "voxel_offset": list(begin),
        "chunk_sizes": [[4, 3, 2]],
        "encoding": "raw",
        **more,
    }


def write_precomputed(
    path: Path, scales: Sequence[dict[str, Any]] | None = None, dtype: str = "uint16", channels: int = 1
) -> Path:
    """Write a precomputed volume by hand; channel c is c more than the first."""
    scales = [scale_of()] if scales is None else scales
    info = {"type": "image", "data_type": dtype, "num_channels": channels, "scales": list(scales)}
    write_json(path / "info", {"@type": "neuroglancer_multiscale_volume", **info})
    voxels = np.stack([coded(dtype) + np.asarray(each, dtype) for each in range(channels)])
    for scale in scales:
        (path / scale["key"]).mkdir(parents=True, exist_ok=True)
        begin, (edges,) = scale["voxel_offset"], scale["chunk_sizes"]
        ranges = [[(at, min(at + edge, size)) for at in range(0, size, edge)] for size, edge in zip(SHAPE[::-1], edges)]
        for place in itertools.product(*ranges):
            inside = tuple(slice(first, last) for first, last in place)
            name = "_".join(f"{first + offset}-{last + offset}" for (first, last), offset in zip(place, begin))
            part = voxels[(slice(None), *inside[::-1])]
            (path / scale["key"] / name).write_bytes(part.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    return path
