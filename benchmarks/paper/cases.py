# SPDX-License-Identifier: Apache-2.0
"""Where a reconstruction does best and where it does worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scripts import lattice
from scripts.evaluation.figures import compare_slices
from scripts.transforms.axial_decimate import axial_decimate
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.reading import read_volume

NAMES = ("best", "worst")


def draw_best_and_worst(reconstruction: Path, truth: Path, factor: int, folder: Path, side: int = 96) -> list[Path]:
    """Draw the part of an XZ slice that gains most over linear interpolation, and the part that gains least.

    Args:
        reconstruction: made from every ``factor``-th slice of the truth.
        truth: isotropic.
        factor: whole number.
        folder: gets ``benchmarks_best.png`` and ``benchmarks_worst.png``.
        side: of a part in voxels, along X; along Z it is the next whole number of intervals. Parts overlap by half.

    Returns:
        The two files.
    """
    result, reference = read_volume(reconstruction), read_volume(truth)
    slices = result.shape[-1]
    true = torch.Tensor.as_subclass(reference, torch.Tensor)[0, ..., :slices].numpy()
    lowres = axial_decimate(torch.from_numpy(true), factor)
    volumes = {
        "input": lowres.numpy(),
        "linear interpolation": axial_interpolate(lowres, factor, "linear").numpy(),
        "reconstruction": torch.Tensor.as_subclass(result, torch.Tensor)[0].numpy(),
        "truth": true,
    }
    intervals = min(-(-side // factor), lowres.shape[-1] - 1)
    side = min(side, true.shape[0])
    parts = []
    for y in range(0, true.shape[1], 8):
        for x in range(0, true.shape[0] - side + 1, max(1, side // 2)):
            for i in range(0, lowres.shape[-1] - intervals, max(1, intervals // 2)):
                where = slice(x, x + side), y, slice(i * factor, (i + intervals) * factor + 1)
                lost, left = (
                    float(((volumes[name][where] - true[where]) ** 2).mean())
                    for name in ("linear interpolation", "reconstruction")
                )
                parts.append((10 * np.log10(lost / left), x, y, i))
    spacing = lattice.voxel_size(reference.affine.numpy())
    files = []
    for name, (gain, x, y, i) in zip(NAMES, (max(parts), min(parts))):
        coarse, fine = slice(i, i + intervals + 1), slice(i * factor, (i + intervals) * factor + 1)
        shown = {
            title: volume[x : x + side, :, coarse if title == "input" else fine] for title, volume in volumes.items()
        }
        files.append(folder / f"benchmarks_{name}.png")
        captions = {"reconstruction": f"{gain:+.2f} dB"}
        compare_slices(files[-1], shown, spacing, str(reference.meta["unit"]), factor, index=y, captions=captions)
    return files
