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

"""Tells programs that fit a prediction to its input, as MONAI Label does, that the grid has changed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform


class AdoptGridd(MapTransform):
    """Write the grid of another volume into the meta data of ``keys``; voxels and ``affine`` stay as they are.

    MONAI Label resizes a prediction to ``meta["spatial_shape"]`` of its input and writes it with
    ``meta["original_affine"]``, for it expects label maps. A prediction with more slices would lose them again.

    Args:
        keys: volumes that others will ask for the grid, usually the input.
        grid_of: key of the volume (1, X, Y, Z) that has the grid, usually the prediction.
        allow_missing_keys: whether to pass over keys that are not there.
    """

    def __init__(self, keys: KeysCollection, grid_of: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.grid_of = grid_of

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        grid = result[self.grid_of]
        for key in self.key_iterator(result):
            # a copy, so that whoever holds the volume that came in finds it unchanged
            result[key] = MetaTensor(result[key].as_tensor()).copy_meta_from(result[key])
            result[key].meta["spatial_shape"] = tuple(grid.shape[1:])
            result[key].meta["original_affine"] = grid.affine.cpu().numpy()
        return result
