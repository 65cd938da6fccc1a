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

"""Images of a validation, for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events


class TensorBoardPlanes:
    """Writes planes of the first item of a validation to TensorBoard, under their names and on the same gray scale.

    MONAI's TensorBoardImageHandler names them input_0, input_1 and output, and rescales each to its own range.

    Args:
        summary_writer: of TensorBoard.
        planes: name -> function of the item, {"image", "label", "pred"}, that returns a plane (H, W) in [0, 1].
    """

    def __init__(self, summary_writer: Any, planes: Mapping[str, Callable[[Mapping[str, torch.Tensor]], Any]]) -> None:
        self.summary_writer = summary_writer
        self.planes = dict(planes)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for name, plane in self.planes.items():
            image = torch.as_tensor(plane(output[0])).detach().float().cpu().clamp(0, 1)
            self.summary_writer.add_image(name, image.T, engine.state.epoch, dataformats="HW")  # rows are Y
