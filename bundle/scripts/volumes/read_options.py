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

"""How a volume is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ReadOptions(NamedTuple):
    """
    How a volume is read, in place of what its file says; the options of the same names. They are checked where a volume
    is opened.

    Attributes:
        spacing: voxel size [z, y, x] that replaces the one in the file, in the unit of the file, or in micrometer when
            the file names none.
        axes: names of the axes of the file in its order, such as "ZYX"; any letters for axes of length 1.
        dataset: the option ``--dataset``, which configs call ``array``: path of the array in a file or folder that
            holds several, or number of a level of a pyramid.
        time: number of a time point, from 0.
        channel: number of a channel, from 0.
        axis: of the file that is coarse, "z", "y" or "x"; it becomes the last one of the volume.
    """

    spacing: Sequence[float] | None = None
    axes: str | None = None
    dataset: str | None = None
    time: int | None = None
    channel: int | None = None
    axis: str = "z"


AS_STORED = ReadOptions()
"""The default: everything as the file says."""
