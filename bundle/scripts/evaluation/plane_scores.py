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

"""Scores of a reconstruction against a truth, plane by plane."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scripts import lattice
from scripts.errors import InputError
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

PLANES = {"xy": 2, "xz": 1, "yz": 0}
"""The three planes, each with the axis of an (X, Y, Z) array along which its slices follow one another."""

MEASURES = ("psnr", "ssim")

SMALLEST_SIDE = 11
"""Voxels: the window of SSIM (a Gaussian of sigma 1.5, cut at 3.5 sigma) must fit into every slice."""

Scores = dict[str, dict[str, float]]
"""Measure ("psnr" in dB, "ssim") -> plane ("xy", "xz", "yz") -> mean over the slices of that plane."""


def plane_scores(
    reconstruction: np.ndarray, truth: np.ndarray, factor: float, data_range: float = 255.0
) -> dict[str, dict]:
    """Mean PSNR and SSIM over the slices of each plane.

    XY leaves out the slices that lie on an original one, for they are copies (or would be); XZ and YZ include them,
    as in the paper.

    Args:
        reconstruction: array (X, Y, Z).
        truth: array of the same shape, in the same gray levels.
        factor: the axial factor of the reconstruction; tells which XY slices are left out.
        data_range: span of the gray levels, 255 for uint8.

    Returns:
        `psnr` and `ssim`, each plane -> mean score, and `slices_scored`, plane -> number of slices. A slice that equals
        the truth (an empty border, say) has an infinite PSNR and is left out of that mean, unless all slices do.

    Raises:
        InputError: if the shapes differ, are not 3-D or have a side under 11 voxels.
    """
    reconstruction, truth = np.asarray(reconstruction), np.asarray(truth)
    check_shapes(reconstruction.shape, truth.shape)
    factor = lattice.check_factor(factor)
    kept = lattice.kept_among(truth.shape[2], factor)

    scores: dict[str, dict] = {"psnr": {}, "ssim": {}, "slices_scored": {}}
    for plane, axis in PLANES.items():
        indices = [j for j in range(truth.shape[axis]) if not (plane == "xy" and j in kept)]

        def score(j: int, axis: int = axis) -> tuple[float, float]:
            true, image = _slice(truth, axis, j), _slice(reconstruction, axis, j)
            return _psnr(true, image, data_range), _ssim(true, image, data_range)

        # SSIM's filters take nearly all of the time, and run side by side in threads.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            psnr, ssim = zip(*pool.map(score, indices))
        scores["psnr"][plane] = float(np.mean([p for p in psnr if math.isfinite(p)] or math.inf))
        scores["ssim"][plane] = float(np.mean(ssim))
        scores["slices_scored"][plane] = len(indices)
    return scores


def check_shapes(reconstruction: Sequence[int], truth: Sequence[int]) -> None:
    """Check that two volumes can be scored, before they are read.

    Args:
        reconstruction: number of voxels (X, Y, Z).
        truth: the same, up to the last slice that the reconstruction covers.

    Raises:
        InputError: if they differ, are not 3-D or have a side under 11 voxels.
    """
    if tuple(reconstruction) != tuple(truth):
        raise InputError(
            f"the reconstruction has {size_in_words(reconstruction)} voxels and the truth {size_in_words(truth)}: "
            "give a truth on the same grid, (slices - 1) * factor + 1 deep"
        )
    if len(truth) != 3 or min(truth) < SMALLEST_SIDE:
        raise InputError(
            f"scores need a volume of at least {SMALLEST_SIDE} voxels a side, this one has {size_in_words(truth)}"
        )


def best_baseline(candidates: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Scores:
    """The strictest baseline that several interpolations give: the best score for each measure and plane.

    Args:
        candidates: name of an interpolation -> its `plane_scores`.
    """
    return _by_plane(lambda measure, plane: max(c[measure][plane] for c in candidates.values()))


def gains(result: Mapping[str, Mapping[str, float]], baseline: Mapping[str, Mapping[str, float]]) -> Scores:
    """How much higher `result` scores than `baseline`, per measure and plane; 0 where both are perfect."""

    def gain(measure: str, plane: str) -> float:
        a, b = float(result[measure][plane]), float(baseline[measure][plane])
        return 0.0 if a == b else a - b  # the difference of two infinities is not a number

    return _by_plane(gain)


def _by_plane(score: Callable[[str, str], float]) -> Scores:
    return {measure: {plane: float(score(measure, plane)) for plane in PLANES} for measure in MEASURES}


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    return volume.take(index, axis=axis).astype(np.float64)


def _psnr(truth: np.ndarray, image: np.ndarray, data_range: float) -> float:
    if np.array_equal(truth, image):
        return math.inf  # scikit-image gives the same, with a warning
    return float(peak_signal_noise_ratio(truth, image, data_range=data_range))


def _ssim(truth: np.ndarray, image: np.ndarray, data_range: float) -> float:
    return float(
        structural_similarity(
            truth, image, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def size_in_words(shape: Sequence[int]) -> str:
    """Sides of a volume for a message, such as "520 x 520 x 46"."""
    return " x ".join(str(n) for n in shape)
