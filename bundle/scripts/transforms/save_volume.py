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

"""Saving of a volume as a MONAI transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scripts.lattice import Turn
from scripts.transforms.channels import one_for_each
from scripts.volumes.claim import Claim
from scripts.volumes.outputs import check_output
from scripts.volumes.writing import tell_written, write_volume


class SaveVolume(Transform):
    """
    Save a volume in a file, whose suffix decides on the format, with its voxel size and print one line about it; see
    :func:`scripts.volumes.writing.write_volume`.

    Args:
        path: file to write.
        overwrite: whether an existing file may be replaced.
        inputs: files and folders that are never replaced, as those that the volume was made from.
    """

    def __init__(
        self, path: str | os.PathLike, overwrite: bool = False, inputs: Sequence[str | os.PathLike | None] = ()
    ) -> None:
        self.path = path
        self.overwrite = overwrite
        self.inputs = inputs

    def __call__(self, data: MetaTensor) -> MetaTensor:
        """
        Args:
            data: volume (1, X, Y, Z) or (X, Y, Z); written in ``meta["dtype"]``.

        Returns:
            The same volume.

        Raises:
            InputError: the file cannot be written.
        """
        with Claim(self.path):
            check_output(self.path, self.overwrite, self.inputs)
            write_volume(data, self.path, self.overwrite)
        turn = Turn.of(str(data.meta.get("axis", "z")))
        affine = turn.affine_of_file(np.asarray(data.affine))
        tell_written(self.path, turn.to_file(data.shape[-3:]), affine, data.meta.get("unit", "pixel"))
        return data


class SaveVolumed(MapTransform):
    """
    Dictionary form of :class:`SaveVolume`.

    Args:
        keys: of the volumes.
        path: file to write, one for each key.
        overwrite: whether an existing file may be replaced.
        allow_missing_keys: whether to pass over keys that are not there.
        inputs: files and folders that are never replaced, as those that the volume was made from.

    Raises:
        ValueError: unless there is one ``path`` for each key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        path: str | os.PathLike | Sequence[str | os.PathLike],
        overwrite: bool = False,
        allow_missing_keys: bool = False,
        inputs: Sequence[str | os.PathLike | None] = (),
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.saves = [SaveVolume(each, overwrite, inputs) for each in one_for_each(path, keys, "path")]

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict:
        """
        Args:
            data: volumes by key.

        Returns:
            The same volumes.

        Raises:
            InputError: the file cannot be written.
        """
        result = dict(data)
        for key, save in self.key_iterator(result, self.saves):
            result[key] = save(result[key])
        return result
