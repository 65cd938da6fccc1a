# SPDX-License-Identifier: Apache-2.0
"""Scores of the rows of the tables, each kept in a file beside what it is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from scripts import lattice
from scripts.evaluation.evaluate import resolutions
from scripts.evaluation.fourier_shell import shell_correlation
from scripts.evaluation.plane_scores import best_baseline, gains, plane_scores
from scripts.provenance import machine
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.json_file import write_json
from scripts.volumes.reading import read_header, read_volume
from scripts.volumes.writing import write_volume

from benchmarks.paper.baselines import ALIGNED, misaligned_interpolation
from benchmarks.paper.recipes import Recipes, Row
from benchmarks.paper.results import Results
from benchmarks.paper.segmentation import MembraneBenchmark
from benchmarks.paper.stages import run
from benchmarks.paper.tasks import Task

LEARNING = ("train_diffusion.yaml", "generate.yaml", "train.yaml")


def scores_of(volume: Path, task: Task) -> dict[str, Any]:
    """Score a volume on the grid of the truth, or read the scores that it has: "scores" and "resolution"."""
    file = volume.with_suffix(".json")
    if not file.is_file():
        reference = read_volume(task.truth)
        found, true = (
            torch.Tensor.as_subclass(each, torch.Tensor)[0].numpy() for each in (read_volume(volume), reference)
        )
        true = true[..., : found.shape[-1]]
        curves = shell_correlation(found, true, lattice.voxel_size(reference.affine.numpy()))
        write_json(file, {"scores": plane_scores(found, true, task.factor), "resolution": resolutions(curves)})
    return json.loads(file.read_text(encoding="utf-8"))


def interpolated(output: Path, task: Task, interpolate: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Write the coarse volume, interpolated along Z, on the grid of the truth and in whole gray levels, unless it is
    there."""
    if not output.is_file():
        coarse = torch.Tensor.as_subclass(read_volume(task.lowres), torch.Tensor)
        planes = interpolate(coarse).clamp(coarse.min(), coarse.max()).round()
        write_volume(MetaTensor(planes).copy_meta_from(read_volume(task.truth)), output)


def aligned_file(title: str, task: Task, folder: Path) -> Path:
    """Where an aligned interpolation goes."""
    return folder / f"{title.replace(' ', '_')}_x{task.factor:g}.tif"


def score_aligned(task: Task, folder: Path) -> dict[str, dict[str, Any]]:
    """What networks are compared with at any factor: title -> scores, see :func:`scores_of`.

    Args:
        task: what is interpolated.
        folder: of the results.
    """
    found = {}
    for title in ALIGNED:
        volume, mode = aligned_file(title, task, folder), title.removeprefix("aligned ")
        interpolated(volume, task, partial(axial_interpolate, factor=task.factor, mode=mode))
        found[title] = scores_of(volume, task)
    return found


def cells_of(volume: Path, networks: Sequence[MembraneBenchmark], folder: Path) -> dict[str, Any]:
    """Seed of the network -> scores of the membranes and cells in a volume, which are kept in a folder."""
    return {str(each.seed): each.scores(volume, folder / f"membranes_seed{each.seed}.json") for each in networks}


def score_interpolations(
    recipes: Recipes, networks: Sequence[MembraneBenchmark], results: Results
) -> dict[str, dict[str, Any]]:
    """The rows of table 1 that nothing is trained for, and table 2 of the truth."""
    run(recipes.begin)
    task, volume = recipes.task, recipes.work / "misaligned_bicubic.tif"

    def misaligned(planes: torch.Tensor) -> torch.Tensor:
        covered = lattice.output_size(planes.shape[-1], recipes.factor)
        return misaligned_interpolation(planes, recipes.factor)[..., :covered]

    interpolated(volume, task, misaligned)
    found = {"bicubic as published code has it (misaligned)": scores_of(volume, task)}
    found.update(score_aligned(task, recipes.work))
    linear = aligned_file("aligned linear", task, recipes.work)
    found["aligned linear"]["segmentation"] = cells_of(linear, networks, linear.with_suffix(""))
    results.content["unit"] = read_header(task.truth).unit
    results.content["truth"] = {"segmentation": cells_of(task.truth, networks, recipes.work / "truth")}
    return found


def score_row(
    row: Row, networks: Sequence[MembraneBenchmark], interpolations: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Train what a row needs and score it; returns the entry of the row and the seconds of what was trained
    for it now."""
    seconds = run(row.stages)
    document = scores_of(row.volume, row.task)
    baseline = best_baseline({title: interpolations[title]["scores"] for title in ALIGNED})
    entry = {
        "scores": document["scores"],
        "gain": gains(document["scores"], baseline),
        "resolution": document["resolution"],
        "segmentation": cells_of(row.volume, networks, row.volume.with_suffix("")),
        "stages": [stage["title"] for stage in row.stages if stage["config"] in LEARNING],
        "machine": machine(),
    }
    if row.predicted is not None:
        entry["input slices predicted"] = scores_of(row.predicted, row.task)
    return entry, {title: took for title, took in seconds.items() if title in entry["stages"]}
