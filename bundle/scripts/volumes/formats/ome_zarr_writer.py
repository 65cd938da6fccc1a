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

"""Writing of OME-Zarr: version 0.5 with shards, or 0.4; a pyramid made from the finished volume."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scripts.errors import InputError
from scripts.lattice import Box, boxes
from scripts.volumes.block_writer import BlockWriter
from scripts.volumes.box_assembler import BoxAssembler

VERSIONS = ("0.5", "0.4")
COMPRESSIONS = ("zstd", "blosc", "none")
_SMALLEST_LEVEL = 256  # voxels a side: a pyramid ends with a level that is no larger
_UNITS = ("nanometer", "micrometer", "millimeter")
_AXES = ("z", "y", "x")
_CODECS: dict[str, list[dict[str, Any]]] = {
    "zstd": [{"name": "zstd", "configuration": {"level": 1}}],
    "blosc": [
        {
            "name": "blosc",
            "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 1, "blocksize": 0},
        }
    ],
    "none": [],
}
_COMPRESSORS = {
    "zstd": {"id": "zstd", "level": 1},
    "blosc": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    "none": None,
}


class Layout(NamedTuple):
    """
    How a volume is stored.

    Attributes:
        version: of OME-Zarr, one of :data:`VERSIONS`; 0.4 knows no shards.
        chunk: voxels (z, y, x) that are compressed together.
        shard: voxels (z, y, x) of a file, whole chunks; no larger than the volume.
        compression: one of :data:`COMPRESSIONS`.
    """

    version: str = "0.5"
    chunk: tuple[int, int, int] = (64, 64, 64)
    shard: tuple[int, int, int] = (256, 1024, 1024)
    compression: str = "zstd"

    def unit_of_writing(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Voxels (z, y, x) that one task writes as a whole: a shard, or the chunk where there are none.

        Args:
            shape: of the volume (z, y, x).
        """
        if self.version == "0.4":
            return self.chunk
        z, y, x = (
            min(shard, -(-size // chunk) * chunk)
            for shard, chunk, size in zip(self.shard, self.chunk, shape, strict=True)
        )
        return z, y, x


DEFAULT_LAYOUT = Layout()
"""The default layout."""


def check_layout(
    version: Any = None, chunk: Sequence[int] | None = None, shard: Sequence[int] | None = None, compression: Any = None
) -> Layout:
    """
    Return the options ``--ome_zarr_version``, ``--chunk``, ``--shard`` and ``--compression`` as a layout.

    Raises:
        InputError: there is no such version or compression, sizes are not three whole numbers above 0, or a shard does
            not hold whole chunks.
    """
    default = DEFAULT_LAYOUT
    layout = Layout(
        default.version if version is None else str(version),
        check_sizes(chunk, "chunk") or default.chunk,
        check_sizes(shard, "shard") or default.shard,
        default.compression if compression is None else str(compression),
    )
    if layout.version not in VERSIONS:
        raise InputError(f"--ome_zarr_version {version}: there is no such choice; give {' or '.join(VERSIONS)}")
    if layout.compression not in COMPRESSIONS:
        raise InputError(f"--compression {compression}: there is no such choice; give {' or '.join(COMPRESSIONS)}")
    if shard is None:  # the nearest that holds whole chunks
        z, y, x = (max(1, side // part) * part for side, part in zip(default.shard, layout.chunk, strict=True))
        layout = layout._replace(shard=(z, y, x))
    if any(side % part for side, part in zip(layout.shard, layout.chunk, strict=True)):
        raise InputError(
            f"--shard {list(layout.shard)}: does not hold whole chunks of {list(layout.chunk)}; give multiples of them"
        )
    return layout


def check_sizes(sizes: Sequence[int] | None, option: str) -> tuple[int, int, int] | None:
    """
    Return an option that is three numbers of voxels (z, y, x), None when it was not given.

    Raises:
        InputError: they are not three whole numbers above 0.
    """
    if sizes is None:
        return None
    try:
        z, y, x = (int(size) for size in sizes if isinstance(size, int) and size > 0)
    except (TypeError, ValueError):
        raise InputError(
            f"--{option} {sizes}: give three whole numbers above 0, such as --{option} '[64,64,64]'"
        ) from None
    return z, y, x


def block_of(block: tuple[int, int, int] | None, layout: Layout, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """
    Return the voxels (z, y, x) of a store that are computed and written as a whole: the option ``--block``, or a shard.

    Args:
        block: from :func:`check_sizes`.
        layout: of the store.
        shape: of its volume, number of voxels (x, y, z).

    Raises:
        InputError: a block does not hold whole shards.
    """
    shard = layout.unit_of_writing((shape[2], shape[1], shape[0]))
    sizes = block or shard
    if any(side % part and side < size for side, part, size in zip(sizes, shard, shape[::-1], strict=True)):
        raise InputError(
            f"--block {list(sizes)}: does not hold whole shards of {list(shard)}, so that several blocks would write "
            "one file; give multiples of them, or another --shard"
        )
    return sizes


class OmeZarrStore:
    """
    A volume that is being written as OME-Zarr.

    Args:
        path: folder of the store.
        shape: number of voxels (x, y, z).
        dtype: of the voxels.
        affine: 4x4, of which the voxel size and the origin are kept; OME-Zarr has no place for a rotation.
        unit: of the affine: nanometer, micrometer, millimeter or pixel.
        layout: of the arrays.
    """

    def __init__(
        self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str, layout: Layout
    ) -> None:
        self.path = path
        self.dtype = dtype
        self.unit = unit
        self.layout = layout
        sizes = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
        self._voxel_size = [float(size) for size in sizes[::-1]]
        self._origin = [float(place) for place in np.asarray(affine, dtype=float)[2::-1, 3]]
        self.shapes = [shape[::-1]]
        while max(self.shapes[-1]) > _SMALLEST_LEVEL:
            z, y, x = (-(-size // 2) for size in self.shapes[-1])
            self.shapes.append((z, y, x))
        self._levels: dict[int, Any] = {}

    def create(self) -> None:
        """Write the metadata of the store and of its levels; arrays that are there already stay as they are."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.layout.version == "0.5":
            attributes = {"ome": {"version": "0.5", "multiscales": [self._multiscale()]}}
            _write_json(self.path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        else:
            _write_json(self.path / ".zgroup", {"zarr_format": 2})
            _write_json(self.path / ".zattrs", {"multiscales": [{**self._multiscale(), "version": "0.4"}]})
        for level in range(len(self.shapes)):
            self._level(level)

    def unit_of_writing(self, level: int) -> tuple[int, int, int]:
        """Voxels (z, y, x) of a level that one task writes as a whole. Those of the pyramid are smaller, for as much of
        the level below is read for them.
        """
        if level == 0:
            return self.layout.unit_of_writing(self.shapes[0])
        shard = [
            max(1, side // part // 2) * part for side, part in zip(self.layout.shard, self.layout.chunk, strict=True)
        ]
        return self.layout._replace(shard=(shard[0], shard[1], shard[2])).unit_of_writing(self.shapes[level])

    def boxes(self, level: int) -> list[Box]:
        """The parts of a level, each of which one task writes as a whole."""
        z, y, x = self.shapes[level]
        depth, height, width = self.unit_of_writing(level)
        return boxes((x, y, z), (width, height, depth))

    def write(self, box: Box, voxels: np.ndarray, level: int = 0) -> None:
        """Write voxels (x, y, z) to a box of whole units of writing, and wait until they are in their files."""
        self._level(level)[box.slices[::-1]].write(voxels.transpose(2, 1, 0)).result()

    def files(self, box: Box, level: int = 0) -> list[Path]:
        """The files that hold the voxels of a box of whole units of writing."""
        unit = self.unit_of_writing(level)
        indices = [
            range(side[0] // size, -(-side[1] // size)) for side, size in zip((box.z, box.y, box.x), unit, strict=True)
        ]
        prefix = ["c"] if self.layout.version == "0.5" else []
        return [
            self.path.joinpath(str(level), *prefix, str(z), str(y), str(x))
            for z in indices[0]
            for y in indices[1]
            for x in indices[2]
        ]

    def halve(self, box: Box, below: Box, voxels: np.ndarray) -> Any:
        """
        Begin to compute a box of a level of the pyramid.

        Args:
            box: of that level.
            below: a box of the level below that holds all of it.
            voxels: (x, y, z) of ``below``.

        Returns:
            What :meth:`reduce` takes.
        """
        import tensorstore

        part = [slice(2 * side[0] - begin, 2 * side[1] - begin) for side, (begin, _) in zip(box, below, strict=True)]
        return tensorstore.downsample(
            tensorstore.array(voxels[tuple(part)].transpose(2, 1, 0)), [2, 2, 2], "mean"
        ).read()

    def reduce(self, level: int, box: Box, half: Any = None) -> None:
        """
        Make a box of a level of the pyramid: means of 2 x 2 x 2 voxels of the level below, of fewer at the end of a
        side.

        Args:
            level: from 1 up.
            box: of that level.
            half: from :meth:`halve`; None reads the level below.
        """
        import tensorstore

        if half is None:
            half = tensorstore.downsample(self._level(level - 1), [2, 2, 2], "mean")[box.slices[::-1]].read()
        self._level(level)[box.slices[::-1]].write(half.result()).result()

    def _multiscale(self) -> dict[str, Any]:
        units = {"unit": self.unit} if self.unit in _UNITS else {}
        datasets = []
        for level in range(len(self.shapes)):
            scale = [size * 2**level for size in self._voxel_size]
            # the center of the first voxel of a level is that of the voxels of which it is the mean
            places = [
                begin + (large - small) / 2
                for begin, large, small in zip(self._origin, scale, self._voxel_size, strict=True)
            ]
            datasets.append(
                {
                    "path": str(level),
                    "coordinateTransformations": [
                        {"type": "scale", "scale": scale},
                        {"type": "translation", "translation": places},
                    ],
                }
            )
        axes = [{"name": name, "type": "space", **units} for name in _AXES]
        return {"name": "volume", "axes": axes, "datasets": datasets, "type": "mean"}

    def _level(self, level: int) -> Any:
        import tensorstore

        if level not in self._levels:
            spec = {
                "driver": "zarr3" if self.layout.version == "0.5" else "zarr",
                "kvstore": {"driver": "file", "path": str(self.path / str(level))},
                "metadata": self._metadata(level),
                "store_data_equal_to_fill_value": True,  # an absent chunk shall mean a lost one
            }
            self._levels[level] = tensorstore.open(spec, open=True, create=True).result()
        return self._levels[level]

    def _metadata(self, level: int) -> dict[str, Any]:
        shape, unit = list(self.shapes[level]), list(self.unit_of_writing(level))
        if self.layout.version == "0.4":
            return {
                "shape": shape,
                "chunks": unit,
                "dtype": self.dtype.newbyteorder("<").str,
                "compressor": _COMPRESSORS[self.layout.compression],
                "dimension_separator": "/",
                "fill_value": 0,
            }
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            *_codecs(self.layout.compression, self.dtype),
        ]
        sharding = {"chunk_shape": list(self.layout.chunk), "codecs": codecs}
        return {
            "shape": shape,
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": unit}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": list(_AXES),
            "fill_value": 0,
        }


def _codecs(compression: str, dtype: np.dtype) -> list[dict[str, Any]]:
    codecs = json.loads(json.dumps(_CODECS[compression]))
    for codec in codecs:
        if "typesize" in codec["configuration"]:
            codec["configuration"]["typesize"] = dtype.itemsize
    return codecs


@contextmanager
def open_writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, affine: np.ndarray, unit: str
) -> Iterator[BlockWriter]:
    """Write a store block by block, see :meth:`scripts.volumes.formats.base.Format.open_writer`.

    Blocks are collected until they fill a shard, so they should come in the order of Z.
    """
    store = OmeZarrStore(path, shape, dtype, affine, unit, DEFAULT_LAYOUT)
    store.create()
    writer = BoxAssembler(store.boxes(0), dtype, store.write)
    yield writer
    writer.finish()
    for level in range(1, len(store.shapes)):
        for box in store.boxes(level):
            store.reduce(level, box)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
