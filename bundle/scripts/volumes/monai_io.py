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


"""The formats of this bundle for MONAI's own transforms ``LoadImage`` and ``SaveImage``.

The configs use :class:`scripts.transforms.load_volume.LoadVolumed`, which takes blocks as well and whose errors are one
line; ``LoadImage`` and ``SaveImage`` wrap them in a RuntimeError with the tracebacks of all that they tried.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike
from monai.data import ImageReader, ImageWriter, MetaTensor
from monai.utils import MetaKeys, ensure_tuple, get_equivalent_dtype
from scripts.errors import InputError
from scripts.volumes.claim import Claim
from scripts.volumes.formats.registry import format_to_read
from scripts.volumes.outputs import check_output
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume

Paths = str | os.PathLike | Sequence[str | os.PathLike]


class VolumeReader(ImageReader):
    """Reads TIFF, NIfTI and folders of slices with their voxel size; see :func:`scripts.volumes.reading.read_volume`.

    As ``LoadImaged(keys="image", reader="scripts.volumes.monai_io.VolumeReader")``; what comes out is channel-first
    already, (1, X, Y, Z), and passes ``EnsureChannelFirstd``. Several files become channels.

    Args:
        reading: how each file is read.
    """

    def __init__(self, reading: ReadOptions = AS_STORED) -> None:
        self.reading = reading

    def verify_suffix(self, filename: Paths) -> bool:
        """Whether all files have formats that can be read."""
        try:
            for file in ensure_tuple(filename):
                format_to_read(as_path(file))
        except InputError:
            return False
        return True

    def read(self, data: Paths, **_: Any) -> list[MetaTensor]:
        """Read the volumes, (1, X, Y, Z) each.

        Raises:
            InputError: a file cannot be used.
        """
        return [read_volume(file, self.reading) for file in ensure_tuple(data)]

    def get_data(self, img: Sequence[MetaTensor]) -> tuple[np.ndarray, dict]:
        """The voxels (C, X, Y, Z), one channel a volume, and the meta data of the first one.

        Raises:
            InputError: the volumes differ in size or voxel size.
        """
        first = img[0]
        if any(each.shape != first.shape or not torch.allclose(each.affine, first.affine) for each in img):
            raise InputError("files that are channels of one volume must have one size and one voxel size")
        affine = first.affine.numpy()
        grid = {MetaKeys.AFFINE: affine, MetaKeys.ORIGINAL_AFFINE: affine, MetaKeys.SPATIAL_SHAPE: first.shape[1:]}
        return np.concatenate([each.numpy() for each in img]), {**first.meta, **grid}


class VolumeWriter(ImageWriter):
    """Writes TIFF and NIfTI with their voxel size; see :func:`scripts.volumes.writing.write_volume`.

    As ``SaveImaged(keys="pred", writer="scripts.volumes.monai_io.VolumeWriter", output_ext=".tif", output_dtype=None)``.

    Args:
        output_dtype: of the file; None for that of the file that the volume was read from.
        overwrite: whether an existing file may be replaced.
    """

    def __init__(self, output_dtype: DtypeLike = None, overwrite: bool = False, **_: Any) -> None:
        super().__init__(affine=None, meta={})
        self.output_dtype = output_dtype
        self.overwrite = overwrite

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_: Any) -> None:
        """Take the voxels of one channel, which ``channel_dim`` counts.

        Raises:
            ValueError: there are several channels.
        """
        voxels = self.convert_to_channel_last(data_array, channel_dim, squeeze_end_dims=False)
        if voxels.shape[-1] != 1:
            raise ValueError(f"a file has one channel, not {voxels.shape[-1]}: write each on its own")
        self.data_obj = voxels[..., 0]

    def set_metadata(self, meta_dict: Mapping | None, resample: bool = True, **options: Any) -> None:
        """Take the meta data, and resample to ``meta_dict["original_affine"]`` where ``resample`` says so."""
        self.meta = dict(meta_dict or {})
        original, self.affine, shape = self.get_meta_info(meta_dict)
        if resample:
            self.data_obj, self.affine = self.resample_if_needed(self.data_obj, self.affine, original, shape, **options)

    def write(self, filename: str | os.PathLike, verbose: bool = True, **_: Any) -> None:
        """Write the file, which appears once it is complete.

        Raises:
            InputError: the format is not supported, or the file exists or cannot be written.
        """
        super().write(filename, verbose=verbose)
        dtype = self.meta.get("dtype") if self.output_dtype is None else self.output_dtype
        meta = {name: self.meta[name] for name in ("unit", "axis") if name in self.meta}
        if dtype is not None:
            meta["dtype"] = np.dtype(get_equivalent_dtype(dtype, np.ndarray)).name
        affine = None if self.affine is None else torch.as_tensor(np.asarray(self.affine))
        with Claim(filename):
            check_output(filename, self.overwrite)
            write_volume(MetaTensor(torch.as_tensor(self.data_obj), affine=affine, meta=meta), filename, self.overwrite)
