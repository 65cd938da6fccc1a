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

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from scripts import lattice
from scripts.diffusion.strips import StripDataset, strip_of
from scripts.evaluation.figures import show_disagreement


class ShowDisagreement:
    """Writes a PNG of the middle XZ and YZ slices with |XZ - YZ|, which it collects from the strips.

    Args:
        dataset: that the strips come from.
        keys: two, of the pseudo-HR volume and of the disagreement, (1, X, Y, Z) each.
        path: PNG to write; replaced if it exists.

    Raises:
        ValueError: for more or fewer keys than two.
    """

    def __init__(self, dataset: StripDataset, keys: Sequence[str], path: str | Path) -> None:
        self.dataset, self.keys, self.path = dataset, tuple(keys), path
        if len(self.keys) != 2:
            raise ValueError(f"ShowDisagreement takes two keys, not {len(self.keys)}")
        self._slices: dict[str, list[list[np.ndarray]]] = {}
        self._grid = (1.0, 1.0, 1.0), "pixel"

    def attach(self, engine: Engine) -> None:
        """Register with the MONAI evaluator of stage II."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self._slices = {plane: [[] for _ in self.keys] for plane in ("xz", "yz")}

    def _collect(self, engine: Engine) -> None:
        width, height, _ = self.dataset.shape
        for item in engine.state.output:  # type: ignore[union-attr]
            for number, key in enumerate(self.keys):
                strip: MetaTensor = item[key]
                rows, volume = strip_of(strip) or slice(0, height), strip.as_tensor()[0].cpu().numpy()
                self._slices["yz"][number].append(volume[width // 2].copy())
                if rows.start <= height // 2 < rows.stop:
                    self._slices["xz"][number].append(volume[:, height // 2 - rows.start].copy())
                self._grid = lattice.voxel_size(strip.affine.numpy()), str(strip.meta.get("unit", "pixel"))

    def _draw(self, engine: Engine) -> None:
        slices = {plane: tuple(map(np.concatenate, pair)) for plane, pair in self._slices.items()}
        show_disagreement(self.path, slices, *self._grid)
