# SPDX-License-Identifier: Apache-2.0
"""Loading of a volume as a MONAI transform."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from scripts.volumes.axes import check_axes
from scripts.volumes.reading import read_volume


class LoadVolume(Transform):
    """
    Load a TIFF, a NIfTI file or a folder of slices; see :func:`scripts.volumes.reading.read_volume` for what comes out.

    Args:
        spacing: voxel size [z, y, x] that replaces the one in the file.
        axes: what the axes of the file are, such as "ZYX", in place of what it says; see :func:`scripts.volumes.reading.open_volume`.

    Raises:
        InputError: the axes are not Z, Y and X once each.
    """

    def __init__(self, spacing: Sequence[float] | None = None, axes: str | None = None) -> None:
        self.spacing = spacing
        self.axes = check_axes(axes)

    def __call__(self, data: str | os.PathLike) -> MetaTensor:
        """
        Args:
            data: path of the file or folder.

        Returns:
            Volume (1, X, Y, Z), float32, with the values of the file.

        Raises:
            InputError: the file cannot be used.
        """
        return read_volume(data, self.spacing, self.axes)


class LoadVolumed(MapTransform):
    """
    Dictionary form of :class:`LoadVolume`: paths are replaced by volumes.

    Args:
        keys: keys of the paths.
        spacing: voxel size [z, y, x] that replaces the one in each file.
        axes: what the axes of each file are, such as "ZYX", in place of what it says; see :func:`scripts.volumes.reading.open_volume`.
        allow_missing_keys: whether to pass over keys that are not there.

    Raises:
        InputError: the axes are not Z, Y and X once each.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[float] | None = None,
        axes: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadVolume(spacing, axes)

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
