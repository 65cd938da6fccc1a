# SPDX-License-Identifier: Apache-2.0
"""The paper's table 2: how well membranes are found in a reconstruction by a network that knows the true volume alone.

A small MONAI U-Net learns the experts' boundaries on the first half of the true volume's slices. It is then applied unchanged to each
reconstruction, and the second half is scored: against what it finds in the truth there, and against the experts' labels. All that is chosen
(the checkpoint, the threshold, the distance of seeds) is chosen on the first half of the truth.

Arrays are (X, Y, Z), volumes (1, X, Y, Z). Label 0 of the experts means "not known": it is neither cell nor membrane, and no voxel that
touches it teaches the network. In FIB-25's ``test_neurons.ome.tif`` that is one voxel a slice, in a corner; all others, those within
membranes too, belong to a body.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd, RandRotate90d, RandSpatialCropd
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import find_boundaries
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from scripts import lattice
from scripts.errors import InputError
from scripts.evaluation.segmentation import cell_scores, cells_from_membranes, membrane_iou
from scripts.provenance import machine
from scripts.volumes.json_file import write_json
from scripts.volumes.reading import read_volume
from scripts.volumes.whole_file import write_whole

PERCENTILES = (0.5, 99.5)  # of the truth's first half: the gray levels that become 0 and 1
HELD_BACK = 5  # one slice in so many of the first half, the last ones, chooses the checkpoint
VALIDATIONS = 15  # looks at them in one training
OVERLAP = 0.25  # of neighboring windows
_NANOMETERS = {"nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}


@dataclass(frozen=True)
class Training:
    """How the U-Net is made.

    Attributes:
        channels: of MONAI's ``UNet``, two or more. Its first stride is 1, each further one 2.
        steps: of the optimizer.
        batch_size: patches a step.
        patch_size: voxels (x, y, z) of a patch and of a window of inference, x and y alike (patches are turned); multiples of
            2 ** (number of channels - 2).
        learning_rate: the largest of a one-cycle schedule of Adam.
    """

    channels: Sequence[int]
    steps: int
    batch_size: int
    patch_size: Sequence[int]
    learning_rate: float


@dataclass(frozen=True)
class Grid:
    """What is tried to turn membranes into cells.

    Attributes:
        thresholds: of the probability of membrane.
        seed_distances: in nanometers, see :func:`scripts.evaluation.segmentation.cells_from_membranes`.
    """

    thresholds: Sequence[float]
    seed_distances: Sequence[float]


class MembraneNetwork(nn.Module):
    """A U-Net with the map of gray levels it was trained with, so that every volume goes through the same one.

    Args:
        channels: as in :class:`Training`.
        low: gray level that becomes 0.
        high: gray level that becomes 1.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, channels: Sequence[int], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        # MONAI's first level would begin with half the resolution, and boundaries are two voxels thick.
        strides = [1] + [2] * (len(channels) - 2)
        # Batch norm: at inference a fixed map, whatever else a window shows.
        self.unet = UNet(3, 1, 1, channels, strides, num_res_units=1, norm="BATCH")
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("high", torch.tensor(float(high)))

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        """Logits of membrane for gray levels (batch, 1, X, Y, Z)."""
        return self.unet((gray - self.low) / (self.high - self.low))


@dataclass(frozen=True)
class Segmentation:
    """Where membranes are, and the cells between them.

    Attributes:
        membranes: bool (X, Y, Z).
        cells: labels (X, Y, Z), 0 where nothing is known.
    """

    membranes: np.ndarray
    cells: np.ndarray


def experts(neurons: np.ndarray) -> Segmentation:
    """The experts' labels as a segmentation of just these slices.

    Membranes are the voxels, on either side, where two labels meet. Each connected piece of a body is a cell: whoever sees these slices
    alone cannot know that two pieces meet outside them.

    Args:
        neurons: whole-number labels (X, Y, Z), 0 = not known.
    """
    return Segmentation(find_boundaries(neurons, mode="thick"), label(neurons, background=0, connectivity=1))


def train_membranes(
    image: torch.Tensor, neurons: np.ndarray, training: Training, seed: int, path: Path, device: torch.device
) -> MembraneNetwork:
    """Train on the first half of the slices, or load what was trained before.

    The last fifth of the half is held back: the checkpoint with the smallest cross-entropy there is kept.

    Args:
        image: the true volume (1, X, Y, Z), gray levels.
        neurons: the experts' labels (X, Y, Z), 0 = not known.
        training: see there.
        seed: of the first weights and of all draws.
        path: file of the weights, a state dict; its settings are written beside it, as .json.
        device: to train on.

    Returns:
        The network, in evaluation mode.

    Raises:
        InputError: if the weights at ``path`` were made with other settings, or the training slices are smaller than a patch.
    """
    settings = {**asdict(training), "seed": seed}
    if path.is_file() and _made(path.with_suffix(".json"), settings):
        network = MembraneNetwork(training.channels)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.to(device).eval()

    half = image.shape[-1] // 2
    held = max(half // HELD_BACK, 1)
    gray = torch.Tensor.as_subclass(image, torch.Tensor)[..., :half].float()
    labels = neurons[..., :half]
    if any(side < patch for side, patch in zip((*gray.shape[1:3], half - held), training.patch_size)):
        raise InputError(
            f"patch_size {list(training.patch_size)}: larger than the {(*gray.shape[1:3], half - held)} voxels to train on; choose smaller ones"
        )
    target = torch.from_numpy(experts(labels).membranes[None].astype(np.float32))
    known = torch.from_numpy(~ndimage.binary_dilation(labels == 0, np.ones((3, 3, 3)))[None].astype(bool))
    stop = half - held
    sample = {"gray": gray[..., :stop], "target": target[..., :stop], "known": known[..., :stop].float()}
    draw = Compose(
        [
            RandSpatialCropd(sample, training.patch_size, random_size=False),
            *(RandFlipd(sample, prob=0.5, spatial_axis=axis) for axis in range(3)),
            RandRotate90d(sample, prob=0.75, spatial_axes=(0, 1)),
        ]
    ).set_random_state(seed)
    torch.manual_seed(seed)
    low, high = np.percentile(gray.numpy(), PERCENTILES)
    network = MembraneNetwork(training.channels, low, high).to(device)
    optimizer = torch.optim.Adam(network.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, total_steps=training.steps)
    # A window is as deep as a patch: slices before the held ones fill it and are not counted.
    context = min(half, max(held, training.patch_size[2]))
    interval = max(training.steps // VALIDATIONS, 1)
    best, smallest = copy.deepcopy(network.state_dict()), float("inf")
    with tqdm(total=training.steps, desc=f"membrane U-Net, seed {seed}", unit="step") as progress:
        for step in range(1, training.steps + 1):
            network.train()
            draws = [draw(sample) for _ in range(training.batch_size)]
            batch = {name: torch.stack([torch.as_tensor(one[name]) for one in draws]).to(device) for name in sample}
            loss = binary_cross_entropy_with_logits(network(batch["gray"]), batch["target"], batch["known"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % interval == 0 or step == training.steps:
                logits = _logits(network, gray[..., -context:], training.patch_size, device)[..., -held:]
                ours = known[0, ..., -held:]
                error = float(binary_cross_entropy_with_logits(logits[ours], target[0, ..., -held:][ours]))
                progress.set_postfix(held_back=f"{error:.4f}", refresh=False)
                if error < smallest:
                    best, smallest = copy.deepcopy(network.state_dict()), error
            progress.update()
    write_whole(path, lambda partial: torch.save({name: value.cpu() for name, value in best.items()}, partial))
    write_json(path.with_suffix(".json"), {"settings": settings, "held back": smallest, "machine": machine()})
    network.load_state_dict(best)
    return network.eval()


def membranes(
    network: MembraneNetwork, volume: torch.Tensor, patch_size: Sequence[int], device: torch.device
) -> np.ndarray:
    """How likely each voxel is membrane.

    Args:
        network: trained.
        volume: (1, X, Y, Z), gray levels as of the volume it was trained on.
        patch_size: window (x, y, z) in voxels.
        device: where the network is.

    Returns:
        Probabilities (X, Y, Z), float32.
    """
    return _logits(network, volume, patch_size, device).sigmoid().numpy()


def choose(probability: np.ndarray, neurons: np.ndarray, spacing: Sequence[float], grid: Grid) -> dict[str, Any]:
    """The threshold and the distance of seeds with the smallest adapted Rand error.

    Args:
        probability: of membrane (X, Y, Z), in slices that are scored nowhere.
        neurons: the experts' labels of these slices, 0 = not known.
        spacing: voxel size (x, y, z) in nanometers.
        grid: what to try.

    Returns:
        "threshold" and "seed_distance" (nm), the first of equals, their "adapted_rand_error", and "tried", the same three of every pair.
    """
    reference = experts(neurons).cells
    pairs = [(threshold, distance) for threshold in grid.thresholds for distance in grid.seed_distances]
    tried = []
    for threshold, distance in tqdm(pairs, desc="threshold and seeds", unit="pair"):
        cells = cells_from_membranes(probability, threshold, distance, spacing)
        error = cell_scores(cells, reference)["adapted_rand_error"]
        tried.append({"threshold": threshold, "seed_distance": distance, "adapted_rand_error": error})
    return {**min(tried, key=lambda one: one["adapted_rand_error"]), "tried": tried}


def segment(probability: np.ndarray, choice: Mapping[str, Any], spacing: Sequence[float]) -> Segmentation:
    """Membranes and cells by what :func:`choose` chose; ``spacing`` (x, y, z) in nanometers."""
    cells = cells_from_membranes(probability, choice["threshold"], choice["seed_distance"], spacing)
    # Where all is membrane there is one cell: as a reference, label 0 would say that nothing is known.
    return Segmentation(probability > choice["threshold"], np.maximum(cells, 1))


def score(found: Segmentation, reference: Segmentation) -> dict[str, float]:
    """Compare where the reference is known: "membrane_iou" and what :func:`scripts.evaluation.segmentation.cell_scores` returns."""
    known = reference.cells != 0
    return {
        "membrane_iou": membrane_iou(found.membranes[known], reference.membranes[known]),
        **cell_scores(found.cells, reference.cells),
    }


class MembraneBenchmark:
    """Scores of volumes by one U-Net. It is trained, and its threshold chosen, when first needed; both are kept in files.

    Args:
        work: folder of the weights and the choice.
        truth: the true volume, isotropic, with a voxel size in physical units.
        neurons: the experts' labels of it, 0 = not known.
        settings: the attributes of :class:`Training` and :class:`Grid`.
        seed: of the U-Net.
        slices: how many slices of each volume are used, from the first on; all of the truth's if left out. The coarse lattice may end
            before the truth does, and every volume is to be scored on the same slices.
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
            "against the truth's segmentation" and "against the experts' labels", each with "membrane_iou", "adapted_rand_error", "splits",
            "merges" and "variation_of_information" (bits) over the second half of the slices.

        Raises:
            InputError: if a file cannot be read, is on another grid, or was made with other settings.
        """
        settings = {**self._settings, "slices": self.slices}
        document = _made(output, settings)
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
        document = _made(path, self._settings)
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
                f"{self.neurons}: {labels.shape} voxels where {self.truth} has {tuple(self._truth.shape[1:])}; give the labels of that volume"
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
                f"{path}: {tuple(volume.shape[1:])} voxels where {expected} are scored; give a reconstruction of {self.truth}"
            )
        probability = membranes(self.network, volume[..., : self._end], self.training.patch_size, self.device)
        return segment(probability[..., self._half :], self.choice, self._spacing)


def _logits(
    network: MembraneNetwork, volume: torch.Tensor, patch_size: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Logits of membrane (X, Y, Z) on the CPU, of windows blended by Gaussian weights."""
    network.eval()
    gray = torch.Tensor.as_subclass(volume, torch.Tensor)[None].float()
    with torch.inference_mode():
        logits: Any = sliding_window_inference(
            gray,
            patch_size,
            sw_batch_size=4,
            predictor=network,
            overlap=OVERLAP,
            mode="gaussian",
            padding_mode="replicate",
            sw_device=device,
            device="cpu",
        )
    return logits[0, 0]


def _made(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The document at ``path``, or None; an error if it was made with other settings."""
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    made = document["settings"]
    wanted = json.loads(json.dumps(settings))  # tuples come back from a file as lists
    other = sorted(name for name in {*made, *wanted} if made.get(name) != wanted.get(name))
    if other:
        raise InputError(
            f"{path}: made with other settings ({', '.join(other)}); delete it with what belongs to it, or choose another folder to work in"
        )
    return document
