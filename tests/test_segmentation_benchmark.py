# SPDX-License-Identifier: Apache-2.0
"""Table 2: a U-Net learns the first half of the truth, and the second half of every volume is scored by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from scipy.spatial import cKDTree
from scripts.errors import InputError
from scripts.volumes.writing import write_volume

from benchmarks.paper.cells import Segmentation, experts, score
from benchmarks.paper.segmentation import MembraneBenchmark

SHAPE = (40, 40, 33)
HALF = SHAPE[2] // 2
SETTINGS = {
    "channels": [4, 8],
    "steps": 60,
    "batch_size": 2,
    "patch_size": [16, 16, 8],
    "learning_rate": 0.02,
    "thresholds": [0.3, 0.5],
    "seed_distances": [0, 20],
}
TRUTH, EXPERTS = "against the truth's segmentation", "against the experts' labels"
PERFECT = {"membrane_iou": 1, "adapted_rand_error": 0, "splits": 0, "merges": 0, "variation_of_information": 0}


def cells(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Voronoi tissue with dark membranes: gray levels and labels."""
    draws = np.random.default_rng(seed)
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    distance, nearest = cKDTree(draws.uniform(0, SHAPE, (40, 3))).query(places, k=2)
    gray = np.where(distance[..., 1] - distance[..., 0] < 2, 80, 160) + draws.normal(0, 4, SHAPE)
    labels = nearest[..., 0] + 1
    labels[0, 0] = 0  # not known
    return gray.round(), labels


def write(path: Path, voxels: np.ndarray, dtype: str = "uint8", unit: str = "nanometer") -> Path:
    affine = torch.diag(torch.tensor([10.0, 10.0, 10.0, 1.0], dtype=torch.float64))
    data = torch.from_numpy(voxels[None].astype(np.float32))
    write_volume(MetaTensor(data, affine=affine, meta={"unit": unit, "dtype": dtype}), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The truth, its labels and a blurred volume."""
    folder = tmp_path_factory.mktemp("segmentation")
    gray, labels = cells(0)
    write(folder / "truth.ome.tif", gray)
    write(folder / "neurons.ome.tif", labels, "uint16")
    write(folder / "blurred.tif", ndimage.gaussian_filter1d(gray, 3, axis=2))
    return folder


def benchmark(folder: Path, work: str = "work", slices: int | None = None, **changed) -> MembraneBenchmark:
    files = folder / "truth.ome.tif", folder / "neurons.ome.tif"
    return MembraneBenchmark(folder / work, *files, {**SETTINGS, **changed}, seed=0, slices=slices, device="cpu")


@pytest.fixture(scope="module")
def truth_scores(folder) -> dict:
    return benchmark(folder).scores(folder / "truth.ome.tif", folder / "truth.json")


@pytest.mark.slow
def test_the_truth_is_perfect_against_itself(truth_scores):
    assert truth_scores[TRUTH] == pytest.approx(PERFECT)


def test_the_truth_is_close_to_the_labels(truth_scores):
    assert truth_scores[EXPERTS]["membrane_iou"] > 0.6
    assert truth_scores[EXPERTS]["adapted_rand_error"] < 0.2


def test_a_blurred_volume_is_worse(folder, truth_scores):
    blurred = benchmark(folder).scores(folder / "blurred.tif", folder / "blurred.json")
    for reference in (TRUTH, EXPERTS):
        assert blurred[reference]["membrane_iou"] < truth_scores[reference]["membrane_iou"] - 0.05
        for measure in ("adapted_rand_error", "variation_of_information"):
            assert blurred[reference][measure] > truth_scores[reference][measure] + 0.05


def test_what_is_finished_is_not_done_again(folder, truth_scores, tmp_path):
    files = [*(folder / "work").iterdir(), folder / "truth.json"]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert len(before) == 4
    assert benchmark(folder).scores(folder / "truth.ome.tif", folder / "truth.json") == truth_scores
    assert benchmark(folder).scores(folder / "truth.ome.tif", tmp_path / "again.json") == truth_scores
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_scores_need_no_more_than_their_file(folder, truth_scores):
    missing = MembraneBenchmark(folder / "work", folder / "no.tif", folder / "no.tif", SETTINGS, seed=0)
    assert missing.scores(folder / "no.tif", folder / "truth.json") == truth_scores


@pytest.mark.slow
def test_the_second_half_teaches_nothing(folder, truth_scores, tmp_path):
    """Another tissue there, and other labels: the weights and what is chosen stay as they are."""
    (gray, labels), (other_gray, other_labels) = cells(0), cells(1)
    gray[..., HALF:], labels[..., HALF:] = 255 - other_gray[..., HALF:], other_labels[..., HALF:]
    write(tmp_path / "truth.ome.tif", gray)
    write(tmp_path / "neurons.ome.tif", labels, "uint16")
    found, expected = benchmark(tmp_path), benchmark(folder)
    weights = expected.network.state_dict()
    for name, value in found.network.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert found.choice == expected.choice
    assert found.scores(tmp_path / "truth.ome.tif", tmp_path / "scores.json")[EXPERTS] != truth_scores[EXPERTS]


def test_a_network_that_finds_nothing_is_scored(folder, tmp_path):
    """As at toy size: membrane everywhere, or nowhere."""
    gray, neurons = folder / "truth.ome.tif", folder / "neurons.ome.tif"
    for threshold in (0.0, 1.0):
        settings = {**SETTINGS, "steps": 1, "thresholds": [threshold]}
        work = tmp_path / str(threshold)
        found = MembraneBenchmark(work, gray, neurons, settings, seed=0).scores(gray, work / "scores.json")
        assert found[TRUTH] == pytest.approx(PERFECT)
        assert found[EXPERTS]["splits"] == pytest.approx(0) and found[EXPERTS]["merges"] > 1


def test_seeds_differ(folder, truth_scores, tmp_path):
    files = folder / "truth.ome.tif", folder / "neurons.ome.tif"
    settings = {**SETTINGS, "steps": 1}
    first, second = (MembraneBenchmark(tmp_path, *files, settings, seed=seed).network for seed in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_all_volumes_end_at_the_same_slice(folder, truth_scores):
    """A volume that lacks the last slice, as the coarse lattice may, is as good as the truth on the slices before."""
    gray, _ = cells(0)
    shorter = write(folder / "shorter.tif", gray[..., :-1])
    scores = [
        benchmark(folder, slices=SHAPE[2] - 1).scores(volume, folder / f"cut_{volume.name}.json")
        for volume in (folder / "truth.ome.tif", shorter)
    ]
    assert scores[0] == scores[1]
    assert scores[1][TRUTH] == pytest.approx(PERFECT)
    with pytest.raises(InputError, match=r"shorter.tif: \(40, 40, 32\) voxels where \(40, 40, 33\) are scored"):
        benchmark(folder).scores(shorter, folder / "shorter.json")


@pytest.mark.parametrize(
    "changed, names", [({"steps": 61}, "steps"), ({"thresholds": [0.4], "batch_size": 1}, "batch_size, thresholds")]
)
def test_other_settings_are_refused(folder, truth_scores, tmp_path, changed, names):
    for output in (folder / "truth.json", tmp_path / "new.json"):
        with pytest.raises(InputError, match="made with other settings") as error:
            benchmark(folder, **changed).scores(folder / "truth.ome.tif", output)
        assert "\n" not in str(error.value) and ".json" in str(error.value)
        assert names.split(", ")[0] in str(error.value)


def test_another_grid_of_choices_keeps_the_weights(folder, truth_scores):
    assert benchmark(folder, thresholds=[0.4]).network is not None
    with pytest.raises(InputError, match=r"choice_seed0.json: made with other settings \(thresholds\)"):
        benchmark(folder, thresholds=[0.4]).choice


def test_wrong_input(folder, tmp_path):
    gray, labels = cells(0)
    write(tmp_path / "truth.ome.tif", gray)
    write(tmp_path / "neurons.ome.tif", labels[1:], "uint16")
    with pytest.raises(InputError, match="give the labels of that volume"):
        benchmark(tmp_path).network
    with pytest.raises(InputError, match="choose smaller ones"):
        benchmark(folder, "other", patch_size=[16, 16, 16]).network
    write(tmp_path / "truth.ome.tif", gray, unit="pixel")
    write(tmp_path / "neurons.ome.tif", labels, "uint16")
    with pytest.raises(InputError, match="no voxel size"):
        benchmark(tmp_path, steps=1).choice


def test_voxels_that_no_expert_knows_are_left_out():
    labels = np.ones((6, 6, 8), int)
    labels[:, :, 4:] = 2
    expected = experts(labels)
    assert expected.membranes[:, :, 3:5].all() and not expected.membranes[:, :, [2, 5]].any()
    unknown = labels.copy()
    unknown[0] = 0
    nonsense = np.arange(48).reshape(6, 8)
    found = Segmentation(expected.membranes.copy(), labels.copy())
    found.membranes[0], found.cells[0] = nonsense % 2 == 0, nonsense + 10
    assert score(found, Segmentation(expected.membranes, unknown)) == pytest.approx(PERFECT)


def test_pieces_of_a_body_are_cells():
    """Two pieces that meet outside the slices cannot be told to be one."""
    labels = np.ones((6, 6, 9), int)
    labels[:, :, 3:6] = 2
    pieces = experts(labels).cells
    assert len(np.unique(pieces)) == 3 and pieces[0, 0, 0] != pieces[0, 0, 8]
