# SPDX-License-Identifier: Apache-2.0
"""Loading of a volume as a MONAI transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from scripts.io import read_volume


class LoadVolume(Transform):
    """
    Load a TIFF, a NIfTI file or a folder of slices; see :func:`scripts.io.read_volume` for what comes out.

    Args:
        spacing: voxel size [z, y, x] that replaces the one in the file.
    """

    def __init__(self, spacing: Sequence[float] | None = None) -> None:
        self.spacing = spacing

    def __call__(self, data: str | os.PathLike) -> MetaTensor:
        """
        Args:
            data: path of the file or folder.

        Returns:
            Volume (1, X, Y, Z), float32, with the values of the file.

        Raises:
            InputError: the file cannot be used.
        """
        return read_volume(data, self.spacing)


class LoadVolumed(MapTransform):
    """
    Dictionary form of :class:`LoadVolume`: paths are replaced by volumes.

    Args:
        keys: keys of the paths.
        spacing: voxel size [z, y, x] that replaces the one in each file.
        allow_missing_keys: whether to pass over keys that are not there.
    """

    def __init__(
        self, keys: KeysCollection, spacing: Sequence[float] | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(spacing)

    def __call__(self, data: Mapping[Hashable, str | os.PathLike]) -> dict:
        """
        Args:
            data: paths by key.

        Returns:
            The same with the paths replaced by volumes (1, X, Y, Z).

        Raises:
            InputError: a file cannot be used.
        """
        result: dict = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.load(result[key])
        return result
