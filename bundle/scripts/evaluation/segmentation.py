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

"""From membranes to cells, and how far two segmentations differ (the paper's Table 2).

Any map of membranes will do: how likely a voxel is membrane, from 0 to 1. Arrays are (X, Y, Z); label 0 of a reference
    means "not known".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scripts.errors import InputError
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed

_NEIGHBORS = ndimage.generate_binary_structure(3, 1)
"""Voxels are connected by faces: connected by edges and corners, cells would leak through membranes one voxel thin."""


def cells_from_membranes(
    membranes: np.ndarray, threshold: float, seed_distance: float, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> np.ndarray:
    """Cells that membranes enclose: threshold, distance transform, seeds, watershed.

    Seeds are the connected parts farther than ``seed_distance`` from every membrane; a region that is thinner
    throughout is one seed as a whole, so that no cell is lost. The watershed floods the signed distance, so that
    neighbors meet in the middle of a membrane.

    Args:
        membranes: array (X, Y, Z), membrane where above ``threshold``.
        threshold: in the scale of ``membranes``.
        seed_distance: in the unit of ``spacing``. A hole in a membrane or a neck of a cell is cut where its half width
            is below it; at 0 each region between membranes is one cell.
        spacing: voxel size (x, y, z).

    Returns:
        Labels 1, 2, ... of the same shape, int32; every voxel has one. All 0 where everything is membrane.

    Raises:
        InputError: if ``membranes`` is not 3-D.
    """
    membranes = np.asarray(membranes)
    if membranes.ndim != 3:
        raise InputError(f"membranes of shape {membranes.shape}: cells are found in a volume, give an array (X, Y, Z)")
    membrane = membranes > threshold
    if not membrane.any():
        return np.ones(membrane.shape, np.int32)
    distance = ndimage.distance_transform_edt(~membrane, sampling=spacing).astype(np.float32)
    seeds = distance > seed_distance
    regions, number = ndimage.label(~membrane, _NEIGHBORS)
    seeded = np.zeros(number + 1, bool)
    seeded[regions[seeds]] = True
    seeds |= (regions > 0) & ~seeded[regions]
    inside = ndimage.distance_transform_edt(membrane, sampling=spacing).astype(np.float32)
    labels, _ = ndimage.label(seeds, _NEIGHBORS)
    return watershed(inside - distance, labels, connectivity=_NEIGHBORS).astype(np.int32)


def cell_scores(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How far the cells of a prediction differ from those of a reference; 0 is perfect. Voxels of reference label 0 are
    left out.

    Args:
        prediction: whole-number labels, any shape. Its label 0, if it has one, counts as a cell.
        reference: labels of the same shape.

    Returns:
        "adapted_rand_error", from 0 to 1: one minus the F-score of pairs of voxels that share a cell (Arganda-Carreras
        et al. 2015). "splits" and "merges" in bits, the conditional entropies H(prediction | reference) and H(reference
        | prediction), and their sum "variation_of_information" (Meila 2007).

    Raises:
        InputError: if the shapes differ or the reference has no voxel but 0.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    _check(prediction, reference)
    known = reference != 0
    if not known.any():
        raise InputError("the reference has no cell: all its voxels are 0, which means not known")
    # As consecutive numbers: scikit-image's tables are as long as the largest label.
    predicted, true = (np.unique(labels[known], return_inverse=True)[1] + 1 for labels in (prediction, reference))
    error = float(
        adapted_rand_error(true, predicted)[0]
    )  # its precision and recall come out swapped in scikit-image 0.26
    splits, merges = (float(bits) for bits in variation_of_information(true, predicted))
    return {
        "adapted_rand_error": error,
        "splits": splits,
        "merges": merges,
        "variation_of_information": splits + merges,
    }


def membrane_iou(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union of two membrane masks: voxels that are membrane in both / voxels that are in either.

    Args:
        prediction: true where membrane, any shape.
        reference: of the same shape.

    Returns:
        From 0 to 1; 1 where neither has any membrane.

    Raises:
        InputError: if the shapes differ.
    """
    prediction, reference = np.asarray(prediction, bool), np.asarray(reference, bool)
    _check(prediction, reference)
    union = np.count_nonzero(prediction | reference)
    return np.count_nonzero(prediction & reference) / union if union else 1.0


def _check(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise InputError(
            f"the segmentation has shape {prediction.shape} and its reference {reference.shape}: give two on the "
            "same grid"
        )
