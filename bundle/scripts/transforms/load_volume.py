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

"""Loading of a volume as a MONAI transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.volume_block import RECORDED, VolumeBlock, recorded_of


class LoadVolume(Transform):
    """
    Load a TIFF, a NIfTI file or a folder of slices; see :func:`scripts.volumes.reading.read_volume` for what comes out.

    Args:
        reading: how it is read.
    """

    def __init__(self, reading: ReadOptions = AS_STORED) -> None:
        self.reading = reading

    def __call__(self, data: str | os.PathLike | VolumeBlock) -> MetaTensor:
        """
        Args:
            data: path of the file or folder, or a part of a volume that is open already.

        Returns:
            Volume (1, X, Y, Z), float32, with the values of the file.

        Raises:
            InputError: the file cannot be used.
        """
        if isinstance(data, VolumeBlock):
            return data.read()
        return read_volume(data, self.reading)


class LoadVolumed(MapTransform):
    """
    Dictionary form of :class:`LoadVolume`: paths are replaced by volumes.

    Args:
        keys: keys of the paths.
        reading: how each is read.
        allow_missing_keys: whether to pass over keys that are not there.
    """

    def __init__(
        self, keys: KeysCollection, reading: ReadOptions = AS_STORED, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(reading)

    def __call__(self, data: Mapping[Hashable, str | os.PathLike | VolumeBlock]) -> dict:
        """
        Args:
            data: paths by key.

        Returns:
            The same with the paths replaced by volumes (1, X, Y, Z); for those whose files have floats, also the item
            of :func:`scripts.volumes.volume_block.recorded_of`, for
            :class:`scripts.transforms.copy_recorded.CopyRecordedd`.

        Raises:
            InputError: a file cannot be used.
        """
        result: dict = dict(data)
        for key in self.key_iterator(result):
            result[key] = volume = self.load(result[key])
            recorded = volume.meta.pop(RECORDED, None)
            if recorded is None and volume.meta["dtype"].startswith("float"):
                recorded = volume.as_tensor().clone()
            if recorded is not None:
                result[recorded_of(key)] = recorded
        return result
