# SPDX-License-Identifier: Apache-2.0
"""The paper's table 2: how well membranes are found in a reconstruction by a network that knows the true volume alone.

A small MONAI U-Net learns the experts' boundaries on the first half of the true volume's slices. It is then applied
unchanged to each reconstruction, and the second half is scored: against what it finds in the truth there, and against
the experts' labels. All that is chosen (the checkpoint, the threshold, the distance of seeds) is chosen on the first
half of the truth.

Arrays are (X, Y, Z), volumes (1, X, Y, Z). Label 0 of the experts means "not known": it is neither cell nor membrane,
and no voxel that touches it teaches the network. In FIB-25's ``test_neurons.ome.tif`` that is one voxel a slice, in a
corner; all others, those within membranes too, belong to a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.json_file import write_json
from scripts.volumes.reading import read_volume

from benchmarks.paper.cells import Grid, Segmentation, choose, experts, score, segment
from benchmarks.paper.membrane_network import MembraneNetwork, Training, made_before, membranes, train_membranes

_NANOMETERS = {"nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}


class MembraneBenchmark:
    """Scores of volumes by one U-Net. It is trained, and its threshold chosen, when first needed; both are kept in
    files.

    Args:
        work: folder of the weights and the choice.
        truth: the true volume, isotropic, with a voxel size in physical units.
        neurons: the experts' labels of it, 0 = not known.
        settings: the attributes of :class:`Training` and :class:`Grid`.
        seed: of the U-Net.
        slices: how many slices of each volume are used, from the first on; all of the truth's if left out. The coarse
            lattice may end before the truth does, and every volume is to be scored on the same slices.
        device: a GPU if there is one, if left out.
    """

    def __init__(
        self,
        work: Path,
        truth: Path,
        neurons: Path,
        settings: Mapping[str, Any],
        seed: int,
        slices: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.work, self.truth, self.neurons, self.seed, self.slices = work, truth, neurons, seed, slices
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.grid = Grid(settings["thresholds"], settings["seed_distances"])
        self.training = Training(**{name: settings[name] for name in settings if name not in asdict(self.grid)})

    def scores(self, volume: Path, output: Path) -> dict[str, Any]:
        """Score a volume, or read the scores that it has.

        Args:
            volume: on the grid of the truth, in its gray levels.
            output: JSON file of the scores.

        Returns:
            "against the truth's segmentation" and "against the experts' labels", each with "membrane_iou",
            "adapted_rand_error", "splits", "merges" and "variation_of_information" (bits) over the second half of the
            slices.

        Raises:
            InputError: if a file cannot be read, is on another grid, or was made with other settings.
        """
        settings = {**self._settings, "slices": self.slices}
        document = made_before(output, settings)
        if document is None:
            found = self._segmentation(volume)
            scores = {
                "against the truth's segmentation": score(found, self._reference),
                "against the experts' labels": score(found, self._experts),
            }
            choice = {name: value for name, value in self.choice.items() if name != "tried"}
            document = {"settings": settings, "volume": str(volume), "choice": choice, "scores": scores}
            write_json(output, document)
        return document["scores"]

    @cached_property
    def network(self) -> MembraneNetwork:
        """The U-Net, trained on the truth's first half."""
        path = self.work / f"membranes_seed{self.seed}.pt"
        return train_membranes(self._truth, self._neurons, self.training, self.seed, path, self.device)

    @cached_property
    def choice(self) -> dict[str, Any]:
        """What :func:`choose` chose on the truth's first half, which is all the network is shown for it."""
        path = self.work / f"choice_seed{self.seed}.json"
        document = made_before(path, self._settings)
        if document is None:
            probability = membranes(self.network, self._truth[..., : self._half], self.training.patch_size, self.device)
            choice = choose(probability, self._neurons[..., : self._half], self._spacing, self.grid)
            document = {"settings": self._settings, "choice": choice}
            write_json(path, document)
        return document["choice"]

    @property
    def _settings(self) -> dict[str, Any]:
        """What the network and the choice belong to."""
        return {**asdict(self.training), **asdict(self.grid), "seed": self.seed}

    @cached_property
    def _truth(self) -> MetaTensor:
        return read_volume(self.truth)

    @cached_property
    def _neurons(self) -> np.ndarray:
        labels = read_volume(self.neurons).numpy()[0].astype(np.int64)
        if labels.shape != self._truth.shape[1:]:
            raise InputError(
                f"{self.neurons}: {labels.shape} voxels where {self.truth} has {tuple(self._truth.shape[1:])}; give "
                "the labels of that volume"
            )
        return labels

    @property
    def _half(self) -> int:
        return self._truth.shape[-1] // 2

    @property
    def _end(self) -> int:
        return self._truth.shape[-1] if self.slices is None else self.slices

    @cached_property
    def _spacing(self) -> list[float]:
        """Voxel size (x, y, z) in nanometers."""
        unit = self._truth.meta["unit"]
        if unit not in _NANOMETERS:
            raise InputError(f"{self.truth}: no voxel size, and seeds are apart by nanometers; write it into the file")
        return [side * _NANOMETERS[unit] for side in lattice.voxel_size(self._truth.affine.numpy())]

    @cached_property
    def _reference(self) -> Segmentation:
        return self._segmentation(self.truth)

    @cached_property
    def _experts(self) -> Segmentation:
        return experts(self._neurons[..., self._half : self._end])

    def _segmentation(self, path: Path) -> Segmentation:
        """The second half of a volume, of which the network sees the whole."""
        volume = read_volume(path)
        expected = (*self._truth.shape[1:3], self._end)
        if tuple(volume.shape[1:3]) != expected[:2] or volume.shape[-1] < self._end:
            raise InputError(
                f"{path}: {tuple(volume.shape[1:])} voxels where {expected} are scored; give a reconstruction of "
                f"{self.truth}"
            )
        probability = membranes(self.network, volume[..., : self._end], self.training.patch_size, self.device)
        return segment(probability[..., self._half :], self.choice, self._spacing)
