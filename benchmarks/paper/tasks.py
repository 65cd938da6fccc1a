# SPDX-License-Identifier: Apache-2.0
"""What a benchmark reconstructs, at any factor."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from monai.data import MetaTensor
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume


@dataclass(frozen=True)
class Task:
    """What a method is given and what its result is compared with.

    Attributes:
        truth: isotropic volume.
        lowres: some of its slices.
        factor: how many times finer they are to become.
    """

    truth: Path
    lowres: Path
    factor: float


def make_task(truth: Path, factor: float, folder: Path) -> Task:
    """Keep some slices of a true volume, unless the files are there already.

    No slice lies at half a voxel: for a factor p / q the truth is every q-th voxel along X, Y and Z, and the coarse
    volume, of the same XY pixels, every p-th slice.

    Args:
        truth: isotropic.
        factor: above 1, a fraction of small numbers.
        folder: of the files.
    """
    ratio = Fraction(factor).limit_denominator(100)
    step, axial_step = ratio.denominator, ratio.numerator
    isotropic = _every(truth, (step, step, step), folder / f"truth_x{factor:g}.tif") if step > 1 else truth
    return Task(isotropic, _every(truth, (step, step, axial_step), folder / f"lowres_x{factor:g}.tif"), factor)


def _every(volume: Path, steps: tuple[int, int, int], output: Path) -> Path:
    """Every so many voxels along X, Y and Z, on a grid that says so."""
    if not output.is_file():
        fine = read_volume(volume)
        x, y, z = steps
        voxels = torch.Tensor.as_subclass(fine, torch.Tensor)[:, ::x, ::y, ::z]
        kept = MetaTensor(voxels).copy_meta_from(fine)
        kept.affine = fine.affine @ torch.diag(torch.tensor([x, y, z, 1.0], dtype=fine.affine.dtype))
        write_volume(kept, output)
    return output
