# SPDX-License-Identifier: Apache-2.0
"""Cells from membranes, and scores of label volumes worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.evaluation.segmentation import cell_scores, cells_from_membranes, membrane_iou

PERFECT = {"adapted_rand_error": 0, "splits": 0, "merges": 0, "variation_of_information": 0}


@pytest.fixture
def halves() -> np.ndarray:
    labels = np.ones((4, 4, 8), int)
    labels[:, :, 4:] = 2
    return labels


def rand_error(pairs_in_both: float, pairs_in_prediction: float, pairs_in_reference: float) -> float:
    return 1 - 2 * pairs_in_both / (pairs_in_prediction + pairs_in_reference)


def pairs(voxels: int) -> int:
    return voxels * (voxels - 1)


def test_identical_up_to_names(halves):
    assert cell_scores(halves, halves) == pytest.approx(PERFECT)
    assert cell_scores(np.where(halves == 1, 70000, 3), halves) == pytest.approx(PERFECT)


def test_a_split_costs_a_bit(halves):
    """One cell of 128 voxels, found as two of 64."""
    found = cell_scores(halves, np.ones_like(halves))
    error = rand_error(2 * pairs(64), 2 * pairs(64), pairs(128))
    assert found == pytest.approx(
        {"adapted_rand_error": error, "splits": 1, "merges": 0, "variation_of_information": 1}
    )


def test_a_merge_costs_a_bit(halves):
    found = cell_scores(np.ones_like(halves), halves)
    error = rand_error(2 * pairs(64), pairs(128), 2 * pairs(64))
    assert found == pytest.approx(
        {"adapted_rand_error": error, "splits": 0, "merges": 1, "variation_of_information": 1}
    )


def test_unrelated_halves_cost_a_bit_of_each(halves):
    across = np.ones_like(halves)
    across[2:] = 2
    found = cell_scores(across, halves)
    assert found["splits"] == found["merges"] == pytest.approx(1)


def test_voxels_of_no_known_cell_are_left_out(halves):
    reference = halves.copy()
    reference[:, :, 6:] = 0
    prediction = halves.copy()
    prediction[:, :, 6:] = np.arange(2 * 16).reshape(4, 4, 2) + 10  # nonsense where nothing is known
    assert cell_scores(prediction, reference) == pytest.approx(PERFECT)


def test_zero_of_a_prediction_counts_as_a_cell(halves):
    assert cell_scores(halves - 1, halves) == pytest.approx(PERFECT)


def test_wrong_labels(halves):
    with pytest.raises(InputError, match="same grid"):
        cell_scores(halves[1:], halves)
    with pytest.raises(InputError, match="no cell"):
        cell_scores(halves, np.zeros_like(halves))
    with pytest.raises(InputError, match="same grid"):
        membrane_iou(halves[1:] > 1, halves > 1)
    with pytest.raises(InputError, match="volume"):
        cells_from_membranes(np.zeros((4, 4)), 0.5, 1)


def test_membrane_iou():
    reference = np.zeros((4, 4, 6), bool)
    reference[:, :, 2:4] = True
    shifted = np.roll(reference, 1, axis=2)
    assert membrane_iou(reference, reference) == 1
    assert membrane_iou(shifted, reference) == pytest.approx(1 / 3)
    assert membrane_iou(~reference, reference) == 0
    assert membrane_iou(np.zeros_like(reference), np.zeros_like(reference)) == 1


def walls(shape=(20, 20, 20)) -> np.ndarray:
    """Eight rooms between walls two voxels thick, and how sure one is of the walls."""
    membranes = np.full(shape, 0.1)
    for axis in range(3):
        np.moveaxis(membranes, axis, 0)[9:11] = 0.8
    return membranes


def test_rooms_become_cells_that_meet_within_the_wall():
    cells = cells_from_membranes(walls(), 0.5, 2)
    assert sorted(np.bincount(cells.ravel())) == [0] + [1000] * 8
    x, y, z = np.indices(cells.shape) >= 10
    assert cell_scores(cells, 4 * x + 2 * y + z + 1) == pytest.approx(PERFECT)


def test_a_hole_in_a_wall_splits_or_merges_by_the_distance_of_seeds():
    membranes = walls((20, 20, 20))
    membranes[9:11, 3:6, 3:6] = 0.1  # a door of 3 x 3 voxels: its middle is 2 from the wall
    assert cells_from_membranes(membranes, 0.5, 2.5).max() == 8
    assert cells_from_membranes(membranes, 0.5, 1.0).max() == 7
    assert cells_from_membranes(membranes, 0.05, 1.0).max() == 0  # all is membrane
    assert cells_from_membranes(membranes, 0.9, 1.0).max() == 1  # none is


def test_thin_cells_are_not_lost():
    membranes = np.zeros((12, 12, 20))
    membranes[5] = membranes[7] = 1  # a sheet one voxel thin between two cells
    cells = cells_from_membranes(membranes, 0.5, 3)
    assert cells.max() == 3
    assert len(np.unique(cells[6])) == 1 and cells[6, 0, 0] not in (cells[0, 0, 0], cells[11, 0, 0])


def test_distances_are_physical():
    """A door two voxels high in Z, which are five times as long as those in X and Y."""
    membranes = np.zeros((20, 20, 12))
    membranes[9:11] = 1
    membranes[9:11, 4:16, 5:7] = 0
    assert cells_from_membranes(membranes, 0.5, 4, (1, 1, 5)).max() == 1
    assert cells_from_membranes(membranes, 0.5, 4, (1, 1, 1)).max() == 2
