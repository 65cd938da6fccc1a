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

"""Draws the disagreement map of stage II beside the pseudo-HR volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scripts import lattice
from scripts.evaluation.figures import show_disagreement
from scripts.transforms.channels import only_channel


class ShowDisagreementd(MapTransform):
    """Write a PNG of an XZ and a YZ slice with |XZ - YZ|.

    Args:
        keys: two, of the pseudo-HR volume and of the disagreement, (1, X, Y, Z) each.
        path: PNG to write; replaced if it exists.
        allow_missing_keys: whether to draw nothing where one is not there.

    Raises:
        ValueError: for more or fewer keys than two.
    """

    def __init__(self, keys: KeysCollection, path: str | Path, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 2:
            raise ValueError(f"ShowDisagreementd takes two keys, not {len(self.keys)}")
        self.path = path

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        found = [result[key] for key in self.key_iterator(result)]
        if len(found) < 2:
            return result
        pseudo, disagreement = found
        spacing = lattice.voxel_size(pseudo.affine.numpy())
        unit = str(pseudo.meta.get("unit", "pixel"))
        volume, map_of_it = (only_channel(each, type(self).__name__).numpy() for each in (pseudo, disagreement))
        show_disagreement(self.path, volume, map_of_it, spacing, unit)
        return result
