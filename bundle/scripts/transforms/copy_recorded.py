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

"""Recorded slices as they are stored, in the place of their copies."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scripts import lattice
from scripts.transforms.channels import one_for_each
from scripts.volumes.volume_block import COPIED, FACTOR, block_of, recorded_of


class CopyRecordedd(MapTransform):
    """Put the recorded slices into reconstructions, to the bit.

    Integers come through the intensity scale and back unchanged; floats do not quite, so they are taken from the entry
    that :class:`scripts.transforms.load_volume.LoadVolumed` keeps of them. Without it, and
    where the inferer predicted these slices, nothing is done.

    Args:
        keys: of reconstructions (1, X, Y, Z) in the values of the file, as the inferer made them of a volume or of a
            block.
        image_key: of the recorded volume that they were made of, one for each key.
        allow_missing_keys: whether to pass over keys that are not there.

    Raises:
        ValueError: unless there is one ``image_key`` for each key.
    """

    def __init__(
        self, keys: KeysCollection, image_key: KeysCollection = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_keys = one_for_each(image_key, keys, "image_key")

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """
        Args:
            data: reconstructions by key, and the recorded slices (1, X, Y, K).

        Returns:
            The same, with the type of the recorded slices where that is wider.
        """
        result = dict(data)
        for key, image_key in self.key_iterator(result, self.image_keys):
            recorded = result.get(recorded_of(image_key))
            if recorded is not None and result[key].meta[COPIED]:
                result[key] = self._copy(torch.as_tensor(recorded), result[key])
        return result

    def _copy(self, recorded: torch.Tensor, volume: MetaTensor) -> MetaTensor:
        factor = float(volume.meta[FACTOR])
        x, y, slices = recorded.shape[-3:]
        block = block_of(volume) or lattice.whole((x, y, slices))
        values = volume.as_tensor().to(torch.promote_types(volume.dtype, recorded.dtype))
        begins = [side.start for side in block.input]
        across, along = (
            slice(side.start - begin, side.stop - begin) for side, begin in zip(block.output(factor)[:2], begins)
        )
        kept = block.output(factor)[2]
        for number in range(block.first, block.last):
            copied = lattice.interval(number, block.shape[2], factor, copy=True).within(kept.start, kept.stop).copied
            if copied is not None:
                values[..., copied - kept.start] = recorded[..., across, along, number - begins[2]].to(values.device)
        return MetaTensor(values).copy_meta_from(volume)
