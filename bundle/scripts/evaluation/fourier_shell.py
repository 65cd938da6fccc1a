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

"""Fourier shell correlation: the resolution to which two volumes agree, over all directions and along Z.

FSC(f) = sum Re(A conj B) / sqrt(sum |A|^2 sum |B|^2) over the shell of spatial frequency f (Harauz and van Heel 1986).
The threshold of 0.143 (Rosenthal and Henderson 2003) belongs to two independent, equally noisy halves. Against a
reference the matching threshold is 0.5, because there C = sqrt(2 F / (1 + F)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.signal.windows import hann
from scripts.errors import InputError
from scripts.evaluation.plane_scores import size_in_words

THRESHOLDS = (0.5, 0.143)

CONE = 30.0
"""Degrees: the axial correlation takes the frequencies closer than this to the Z axis."""

SMALLEST_SIDE = 8
"""Voxels: below that there are fewer than four shells."""


class Resolution(NamedTuple):
    """The first crossing of a threshold.

    Attributes:
        length: in the unit of the voxel size; 2 voxels where the curve never crosses.
        crossed: false where the curve never crosses: the resolution is then at or under ``length``.
    """

    length: float
    crossed: bool


@dataclass(frozen=True)
class Curve:
    """Correlation by spatial frequency.

    Attributes:
        frequency: (S,) centers of the shells in cycles per unit of length, rising; zero frequency is left out.
        correlation: (S,) from -1 to 1; 0 where one of the volumes has nothing in the shell.
        finest: 2 voxels, the shortest wavelength that the sampling can represent, in units of length.
    """

    frequency: np.ndarray
    correlation: np.ndarray
    finest: float

    def resolution(self, threshold: float) -> Resolution:
        """Where the curve first falls below ``threshold``, by linear interpolation between shells; it begins with 1 at
        frequency 0.
        """
        frequency = np.concatenate([[0.0], self.frequency])
        correlation = np.concatenate([[1.0], self.correlation])
        below = np.flatnonzero(correlation < threshold)
        if len(below) == 0:
            return Resolution(self.finest, False)
        last = below[0] - 1
        share = (correlation[last] - threshold) / (correlation[last] - correlation[last + 1])
        return Resolution(float(1 / (frequency[last] + share * (frequency[last + 1] - frequency[last]))), True)


def shell_correlation(volume: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> dict[str, Curve]:
    """Fourier shell correlation of two volumes of the same grid, after their means are removed and their borders
    tapered (Hann).

    A shell is as wide as the coarsest step of the three frequency axes, so that each shell holds samples of each axis.

    Args:
        volume: array (X, Y, Z), any scale of intensities.
        reference: array of the same shape.
        spacing: voxel size (x, y, z).

    Returns:
        "whole", over all directions up to the frequency that the coarsest axis can carry, and "axial", over the cone of
        30 degrees about Z up to the frequency that Z can carry.

    Raises:
        InputError: if the shapes differ, are not 3-D or have a side under 8 voxels.
    """
    volume, reference = np.asarray(volume), np.asarray(reference)
    if volume.shape != reference.shape:
        raise InputError(
            f"Fourier shell correlation: one volume has {size_in_words(volume.shape)} voxels, the other "
            f"{size_in_words(reference.shape)}: give two on one grid"
        )
    if volume.ndim != 3 or min(volume.shape) < SMALLEST_SIDE:
        raise InputError(
            f"Fourier shell correlation needs a volume of at least {SMALLEST_SIDE} voxels a side, this one has "
            f"{size_in_words(volume.shape)}"
        )
    sizes, steps = volume.shape, np.asarray(spacing, dtype=float)
    a, b = _spectrum(volume), _spectrum(reference)
    width = float(np.max(1 / (np.array(sizes) * steps)))
    shells = {name: _number_of_shells(coarsest, width) for name, coarsest in _coarsest(steps).items()}

    fx, fy = (np.fft.fftfreq(n, step) for n, step in zip(sizes[:2], steps[:2]))
    fz = np.fft.rfftfreq(sizes[2], steps[2])
    lateral, axial = fy[:, None] ** 2, fz[None, :] ** 2
    # The spectrum of a real volume is stored by halves: each frequency along Z stands for two, but for zero and the
    # highest even one.
    twice = np.where((fz == 0) | ((sizes[2] % 2 == 0) & (np.arange(len(fz)) == sizes[2] // 2)), 1.0, 2.0)
    sums = {name: np.zeros((3, number + 1)) for name, number in shells.items()}
    for i, f in enumerate(fx):  # plane by plane: the largest temporary is a plane
        length = np.sqrt(f**2 + lateral + axial)
        # what lies between two shells, in one whatever the unit
        shell = np.floor(length / width + 0.5 + 1e-6).astype(int)
        in_cone = fz[None, :] >= math.cos(math.radians(CONE)) * length
        products = [(a[i] * b[i].conj()).real, np.abs(a[i]) ** 2, np.abs(b[i]) ** 2]
        for name, number in shells.items():
            counted = (shell <= number) & (in_cone if name == "axial" else True)
            for total, product in zip(sums[name], products):
                total += np.bincount(shell[counted], (product * twice)[counted], number + 1)
    curves = {}
    for name, number in shells.items():
        cross, *powers = sums[name][:, 1:]  # without zero frequency: the means are removed
        power = np.sqrt(powers[0] * powers[1])
        correlation = np.divide(cross, power, out=np.zeros(number), where=power > 0)
        curves[name] = Curve(width * np.arange(1, number + 1), correlation, 2 * _coarsest(steps)[name])
    return curves


def _coarsest(steps: np.ndarray) -> dict[str, float]:
    """The largest voxel side among the directions of a curve."""
    return {"whole": float(steps.max()), "axial": float(steps[2])}


def _number_of_shells(voxel: float, width: float) -> int:
    return math.floor(0.5 / voxel / width + 1e-6)


def _spectrum(volume: np.ndarray) -> np.ndarray:
    """Half the spectrum (X, Y, Z // 2 + 1) in single precision."""
    tapered = volume.astype(np.float32)
    tapered -= volume.mean(dtype=np.float64)
    for axis, size in enumerate(volume.shape):
        window = hann(size + 2)[1:-1].astype(np.float32)  # without the zeros at its ends
        tapered *= np.expand_dims(window, [i for i in range(3) if i != axis])
    return fft.rfftn(tapered)
