# SPDX-License-Identifier: Apache-2.0
"""The U-Net that finds membranes: its training on the first half of the true volume, and its use on any other."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from monai.transforms import Compose, RandFlipd, RandRotate90d, RandSpatialCropd
from scipy import ndimage
from scripts.errors import InputError
from scripts.provenance import machine
from scripts.volumes.json_file import write_json
from scripts.volumes.whole_file import write_whole
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from benchmarks.paper.cells import experts

PERCENTILES = (0.5, 99.5)  # of the truth's first half: the gray levels that become 0 and 1
HELD_BACK = 5  # one slice in so many of the first half, the last ones, chooses the checkpoint
VALIDATIONS = 15  # looks at them in one training
OVERLAP = 0.25  # of neighboring windows


@dataclass(frozen=True)
class Training:
    """How the U-Net is made.

    Attributes:
        channels: of MONAI's ``UNet``, two or more. Its first stride is 1, each further one 2.
        steps: of the optimizer.
        batch_size: patches a step.
        patch_size: voxels (x, y, z) of a patch and of a window of inference, x and y alike (patches are turned);
            multiples of 2 ** (number of channels - 2).
        learning_rate: the largest of a one-cycle schedule of Adam.
    """

    channels: Sequence[int]
    steps: int
    batch_size: int
    patch_size: Sequence[int]
    learning_rate: float


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
        InputError: if the weights at ``path`` were made with other settings, or the training slices are smaller than a
            patch.
    """
    settings = {**asdict(training), "seed": seed}
    if path.is_file() and made_before(path.with_suffix(".json"), settings):
        network = MembraneNetwork(training.channels)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return network.to(device).eval()

    half = image.shape[-1] // 2
    held = max(half // HELD_BACK, 1)
    gray = torch.Tensor.as_subclass(image, torch.Tensor)[..., :half].float()
    labels = neurons[..., :half]
    if any(side < patch for side, patch in zip((*gray.shape[1:3], half - held), training.patch_size)):
        raise InputError(
            f"patch_size {list(training.patch_size)}: larger than the {(*gray.shape[1:3], half - held)} voxels to "
            "train on; choose smaller ones"
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


def made_before(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The document at ``path``, or None; an error if it was made with other settings."""
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    made = document["settings"]
    wanted = json.loads(json.dumps(settings))  # tuples come back from a file as lists
    other = sorted(name for name in {*made, *wanted} if made.get(name) != wanted.get(name))
    if other:
        raise InputError(
            f"{path}: made with other settings ({', '.join(other)}); delete it with what belongs to it, or choose "
            "another folder to work in"
        )
    return document
