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

"""Where a training keeps the voxels of its volume: on the device, in main memory or on disk, by what is free."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from humanize import naturalsize
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import EnsureType, MapTransform, Transform
from scripts.errors import InputError
from scripts.transforms.load_volume import LoadVolume
from scripts.transforms.scale_intensity import ScalePercentiles, measure_intensity
from scripts.volumes.header import Header
from scripts.volumes.kept_volume import KeptVolume, kept_bytes
from scripts.volumes.memory import free_memory
from scripts.volumes.outputs import free_space
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import VolumeSource, open_volume
from tqdm import tqdm

logger = logging.getLogger(__name__)

PLACES = {"device": "on the device", "memory": "in main memory", "disk": "in a scratch file on disk"}
"""Where voxels are kept, in the order in which it is tried, and in words."""

_SHARE = 0.5  # of what is free that the voxels may take; the rest is for the training
_LOADED = 8  # bytes of main memory for each voxel of a volume on its way to the device: as read, and scaled
_SCALED = 4  # bytes for each voxel of a volume in single precision


class Room(NamedTuple):
    """What the voxels of a training take.

    Attributes:
        place: of :data:`PLACES`.
        memory, gpu_memory, disk: bytes of each.
    """

    place: str
    memory: int
    gpu_memory: int
    disk: int

    def in_words(self) -> str:
        """Where the voxels are kept and how much of it they take."""
        return f"{PLACES[self.place]} ({naturalsize(self.disk or self.gpu_memory or self.memory, binary=True)})"


class KeepVolume(Transform):
    """
    Read a volume and keep it, scaled to [0, 1] where patches are cut from it: on the device, or else in main memory or on
    disk in the type of the file, of which patches are scaled and sent to the device. Values and what is drawn are the
    same.

    The place is the first where the voxels take no more than half of what is free when the volume is read: on the
    device, in main memory, on disk.

    Args:
        reading: how the volume is read.
        percentiles: of the intensities that become 0 and 1.
        device: where patches go.
        folder: of the scratch file.
        keep_in: "device", "memory" or "disk" in place of the first that has room.
        noisy: whether a second volume is kept beside it, see :class:`scripts.transforms.match_noise.MatchNoise`.
    """

    def __init__(
        self,
        reading: ReadOptions = AS_STORED,
        percentiles: Sequence[float] = (0.1, 99.9),
        device: str | torch.device = "cpu",
        folder: str | os.PathLike = ".",
        keep_in: str | None = None,
        noisy: bool = False,
    ) -> None:
        self.reading = reading
        self.scale = ScalePercentiles(*percentiles)
        self.device = torch.device(device)
        self.folder = as_path(folder)
        self.keep_in = keep_in
        self.noisy = noisy

    def __call__(self, data: str | os.PathLike) -> MetaTensor | KeptVolume:
        """
        Args:
            data: path of the volume.

        Returns:
            (1, X, Y, Z), float32, on the device; or a kept volume.

        Raises:
            InputError: the volume cannot be used, or there is no room for it.
        """
        with open_volume(data, self.reading) as source:
            room = self.room(source.header, data)
            if room.place != "device":
                logger.info(f"{data}: its voxels are kept {room.in_words()}")
                return self._keep(source, self.folder if room.place == "disk" else None)
        result: MetaTensor = EnsureType(device=self.device)(self.scale(LoadVolume(self.reading)(data)))
        return result

    def room(self, header: Header, path: str | os.PathLike = "the volume") -> Room:
        """
        Find where a volume would be kept.

        Args:
            header: of it.
            path: for the error.

        Raises:
            InputError: there is no room for it.
        """
        voxels, cuda = math.prod(header.shape), self.device.type == "cuda"
        scaled = _SCALED * voxels * (2 if self.noisy else 1)
        stored = kept_bytes(header.shape, header.dtype) + (kept_bytes(header.shape, "float32") if self.noisy else 0)
        memory = _LOADED * voxels
        rooms = {
            "device": Room("device", memory, scaled if cuda else 0, 0),
            "memory": Room("memory", stored, 0, 0),
            "disk": Room("disk", 0, 0, stored),
        }
        if self.keep_in is not None:
            return rooms[self.keep_in]
        free, disk = free_memory(), free_space(self.folder / "x")
        on_gpu = _free_on_gpu(self.device) if cuda else 0
        for room in rooms.values():
            if room.memory <= _SHARE * free and room.gpu_memory <= _SHARE * on_gpu and room.disk <= disk:
                return room
        raise InputError(
            f"{path}: its voxels take {naturalsize(stored, binary=True)}, more than half of the "
            f"{naturalsize(free, binary=True)} of memory that are free, and {naturalsize(disk, binary=True)} are free in "
            f"{self.folder}: give an --output_dir on a larger disk, or cut the volume"
        )

    def _keep(self, source: VolumeSource, folder: Path | None) -> KeptVolume:
        shape = source.header.shape
        kept = KeptVolume(shape, source.header.dtype, self.device, folder)
        slices = tqdm(kept.keep(source.checked_slices()), "reading", shape[2], leave=False, unit="slice")
        kept.scale = measure_intensity(slices, shape, self.scale.lower, self.scale.upper).scale
        return kept


class KeepVolumed(MapTransform):
    """
    Dictionary form of :class:`KeepVolume`: paths are replaced by volumes.

    Args:
        keys: of the paths.
        reading, percentiles, device, folder, keep_in, noisy: see there.
        allow_missing_keys: whether to pass over keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reading: ReadOptions = AS_STORED,
        percentiles: Sequence[float] = (0.1, 99.9),
        device: str | torch.device = "cpu",
        folder: str | os.PathLike = ".",
        keep_in: str | None = None,
        noisy: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = KeepVolume(reading, percentiles, device, folder, keep_in, noisy)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.keep(result[key])
        return result


def _free_on_gpu(device: torch.device) -> int:
    """Bytes of a GPU that this process can still allocate, with those that PyTorch holds in reserve."""
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserve
