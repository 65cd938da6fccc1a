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

"""Volumes as a dataset of blocks, read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset, MetaTensor
from scripts.errors import InputError
from scripts.lattice import Block, Box
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.volumes.factor import factor_of
from scripts.volumes.formats.registry import readable, store_format, suffix_like, suffix_of_volume, volumes_of
from scripts.volumes.formats.stores import url_of
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import VolumeSource
from scripts.volumes.volume_block import BLOCK, VOLUME, WHOLE, VolumeBlock

OUTPUT_VOXELS = {"cuda": 2**27, "cpu": 2**22}  # of a block: a GPU hardly waits between blocks, and a CPU shows progress


@dataclass
class Volume:
    """A volume of the dataset.

    Attributes:
        path: as it was given.
        source: open for reading.
        factor: how many times finer Z becomes.
        blocks: of it that are to be computed.
    """

    path: str | os.PathLike
    source: VolumeSource
    factor: float
    blocks: list[Block]

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Sizes (x, y, z) of the reconstruction."""
        return self.source.header.refined(self.factor).shape


class BlockDataset(Dataset):
    """The blocks of volumes that lie on disk, and volumes that are in memory, whole.

    An item of ``data`` that names a file gives the items of its blocks, one after the other, each with a
    :class:`scripts.volumes.reading.VolumeBlock` in place of the path. Where ``whole`` is set, and for images that are
    no paths, an item stays as it is.

    Args:
        data: mappings with an "image": path, or volume (C, X, Y, K).
        transform: of an item; it begins with :class:`scripts.transforms.load_volume.LoadVolumed`.
        inferer: that the blocks are for: its factor, tiles and halo.
        network: of stage III, on the device.
        device: that computes.
        reading: how the files are read.
        whole: whether volumes are loaded whole.

    Attributes:
        inferer: the same.
        volumes: that lie on disk.

    Raises:
        InputError: there is no volume, or one cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable | None,
        inferer: AxialInferer,
        network: torch.nn.Module,
        device: str | torch.device,
        reading: ReadOptions = AS_STORED,
        whole: bool = False,
    ) -> None:
        super().__init__(list(data), transform)
        self.volumes: list[Volume] = []
        self._entries: list[tuple[Mapping[str, Any], int]] = []  # items of data, and the numbers of their volumes
        self.inferer, self._network, self._device = inferer, network, torch.device(device)
        for item in self.data:
            image = item.get("image")
            if image is None:
                raise InputError("--volume is missing: add --volume and its value to the command")
            if whole or not isinstance(image, (str, os.PathLike)):
                self._entries.append((item, -1))
                continue
            source = VolumeSource(image, reading)
            factor = factor_of(source.header, inferer.factor, inferer.target_spacing)
            inferer.check_trained(factor)
            self._entries.append((item, len(self.volumes)))
            self.volumes.append(Volume(image, source, factor, []))
            self.cut(len(self.volumes) - 1)
        self._list()

    def cut(self, number: int, boxes: Sequence[Box | None] = (None,)) -> None:
        """Cut a volume into blocks again, so that no block crosses the border of a box.

        Args:
            number: of the volume.
            boxes: the parts of the output that are to be computed, one after the other; None for all of it.
        """
        volume = self.volumes[number]
        shape, most = volume.source.header.shape, OUTPUT_VOXELS[self._device.type]
        volume.blocks = [
            block
            for box in boxes
            for block in self.inferer.blocks(shape, volume.factor, self._network, self._device, most, box)
        ]
        self._list()

    def cut_alike(self, number: int, tile: int | None, depth_batch: int | None) -> tuple[int, int]:
        """Return the side of the tiles and the depth batch of a volume: those of an earlier run where they are given
        and no option says something else, since a run that is continued on another machine must cut in the same way.
        """
        volume = self.volumes[number]
        shape, factor = volume.source.header.shape, volume.factor
        if tile is not None and depth_batch is not None and self.inferer.tile is None:
            self.inferer.cut_alike(shape, factor, self._device, tile, depth_batch)
        return self.inferer.tile_and_batch(shape, factor, self._network, self._device)

    def _list(self) -> None:
        """List what the dataset yields: blocks of files, and volumes in memory as they are."""
        self._items: list[tuple[Mapping[str, Any], int, Block | None]] = []
        for item, number in self._entries:
            blocks: Sequence[Block | None] = (None,) if number < 0 else self.volumes[number].blocks
            self._items.extend((item, number, block) for block in blocks)

    def __len__(self) -> int:
        return len(self._items)

    def _transform(self, index: int) -> Any:
        item, number, block = self._items[index]
        if block is not None:
            source = self.volumes[number].source
            meta = {"filename_or_obj": str(item["image"]), BLOCK: torch.tensor(block.numbers()), VOLUME: number}
            item = {**item, "image": VolumeBlock(source, *block.input, meta)}
        result = dict(item) if self.transform is None else self.transform(item)
        image = result["image"]
        if isinstance(image, MetaTensor):
            image.meta.pop(WHOLE, None)  # a batch cannot hold it
        return result


def volumes_in(volume: str | os.PathLike | None, folder: str | os.PathLike | None) -> list[dict[str, Any]]:
    """The data of a dataset: one volume, or all files and stores of a folder in natural order.

    Raises:
        InputError: both are given, or the folder does not exist, is a store itself, or holds no volume.
    """
    if folder is None:
        return [{"image": volume}]
    if volume is not None:
        raise InputError(f"--volume {volume} and --dataset_dir {folder} both name the input: give one of them")
    place = as_path(folder)
    if not place.is_dir():
        raise InputError(f"--dataset_dir {folder}: no such folder")
    try:
        store = store_format(place)
        volumes = [] if store else volumes_of(place)
    except OSError as error:
        raise InputError(f"--dataset_dir {folder}: cannot be read ({error.strerror})") from error
    if store is not None:
        raise InputError(f"--dataset_dir {folder}: is itself {store.NAME}; give it as --volume")
    if not volumes:
        raise InputError(
            f"--dataset_dir {folder}: holds no volume, which is {readable()}; a folder of slices is given as --volume"
        )
    return [{"image": str(each)} for each in volumes]


def named_after(path: str | os.PathLike, factor: float) -> str:
    """Name of the reconstruction of a volume: that of the file, store or folder of slices, and the factor; in its own
    format where that is written, see :func:`scripts.volumes.formats.registry.suffix_like`.
    """
    file = Path(path) if url_of(Path(path)) else Path(os.path.abspath(path))
    kind = suffix_like(file)
    is_slices = file.is_dir() and store_format(file) is None
    suffix = "" if is_slices else suffix_of_volume(file) or ""
    return f"{file.name.removesuffix(suffix)}_x{factor:g}{kind}"
