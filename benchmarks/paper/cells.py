# SPDX-License-Identifier: Apache-2.0
"""Membranes and the cells between them: the experts', those that are found, and how well these match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scripts.evaluation.segmentation import cell_scores, cells_from_membranes, membrane_iou
from skimage.measure import label
from skimage.segmentation import find_boundaries
from tqdm import tqdm


@dataclass(frozen=True)
class Grid:
    """What is tried to turn membranes into cells.

    Attributes:
        thresholds: of the probability of membrane.
        seed_distances: in nanometers, see :func:`scripts.evaluation.segmentation.cells_from_membranes`.
    """

    thresholds: Sequence[float]
    seed_distances: Sequence[float]


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

    Membranes are the voxels, on either side, where two labels meet. Each connected piece of a body is a cell: whoever
    sees these slices alone cannot know that two pieces meet outside them.

    Args:
        neurons: whole-number labels (X, Y, Z), 0 = not known.
    """
    return Segmentation(find_boundaries(neurons, mode="thick"), label(neurons, background=0, connectivity=1))


def choose(probability: np.ndarray, neurons: np.ndarray, spacing: Sequence[float], grid: Grid) -> dict[str, Any]:
    """The threshold and the distance of seeds with the smallest adapted Rand error.

    Args:
        probability: of membrane (X, Y, Z), in slices that are scored nowhere.
        neurons: the experts' labels of these slices, 0 = not known.
        spacing: voxel size (x, y, z) in nanometers.
        grid: what to try.

    Returns:
        "threshold" and "seed_distance" (nm), the first of equals, their "adapted_rand_error", and "tried", the same
        three of every pair.
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
    """Compare where the reference is known: "membrane_iou" and what :func:`scripts.evaluation.segmentation.cell_scores`
    returns."""
    known = reference.cells != 0
    return {
        "membrane_iou": membrane_iou(found.membranes[known], reference.membranes[known]),
        **cell_scores(found.cells, reference.cells),
    }
