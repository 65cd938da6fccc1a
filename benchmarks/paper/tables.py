# SPDX-License-Identifier: Apache-2.0
"""The paper's tables, trained and scored anew through the bundle's own configs: ``make benchmark``.

What is trained for how long, and the rule by which it was chosen, stands in ``tables.yaml``. Every row that is finished is kept in the
file of results, and what is in it is not done again: not after an interruption, and not on another machine that the file was taken to.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import MetaTensor

from benchmarks.paper.baselines import ALIGNED, misaligned_interpolation
from benchmarks.paper.cases import draw_best_and_worst
from benchmarks.paper.light_microscopy import LIGHT, draw_light_microscopy
from benchmarks.paper.page import page
from benchmarks.paper.recipes import Recipes, Row
from benchmarks.paper.segmentation import MembraneBenchmark
from benchmarks.paper.stages import run
from benchmarks.paper.tasks import Task, make_task
from benchmarks.paper.training_time import FIGURE, draw_training_time, timed_rows
from scripts import lattice
from scripts.errors import InputError
from scripts.evaluation.evaluate import resolutions
from scripts.evaluation.fourier_shell import shell_correlation
from scripts.evaluation.plane_scores import best_baseline, gains, plane_scores
from scripts.evaluation.segmentation import cells_from_membranes
from scripts.phantom import tissue, write_sample
from scripts.provenance import machine
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.json_file import write_json
from scripts.volumes.reading import read_header, read_volume
from scripts.volumes.whole_file import write_whole
from scripts.volumes.writing import write_volume

ROOT = Path(__file__).resolve().parents[2]
LEARNING = ("train_diffusion.yaml", "generate.yaml", "train.yaml")


class Results:
    """The file of results: written after each row, continued when it is there.

    Args:
        path: of the JSON.
        sizes: a section of ``tables.yaml``; rows of other sizes cannot be in the same tables.

    Attributes:
        content: what the file holds, which is what the page is made of.

    Raises:
        InputError: if the file holds results of other sizes.
    """

    def __init__(self, path: Path, sizes: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"sizes": dict(sizes), "interpolations": {}, "rows": {}, "seconds": {}}
        if path.is_file():
            self.content = self._read(path, sizes)

    @staticmethod
    def _read(path: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
        content = json.loads(path.read_text(encoding="utf-8"))
        for name, value in content["sizes"].items():
            if sizes.get(name) != value:
                raise InputError(
                    f"{path} holds results with {name} {value}, not {sizes.get(name)}: "
                    "give another file, or the sizes that it was made with in tables.yaml"
                )
        return {**content, "sizes": dict(sizes)}  # a table that was declared since is taken in

    def join(self, path: Path) -> None:
        """Take in what another file has and this one has not, and write the file.

        Raises:
            InputError: if the other holds results of other sizes.
        """
        other = self._read(path, self.content["sizes"])
        for table, rows in other["rows"].items():
            for title, row in rows.items():
                mine = self.content["rows"].setdefault(table, {}).setdefault(title, {"kind": row["kind"], "seeds": {}})
                mine["seeds"] = dict(sorted({**row["seeds"], **mine["seeds"]}.items()))
        for seed, seconds in other["seconds"].items():
            self.content["seconds"][seed] = {**seconds, **self.content["seconds"].get(seed, {})}
        self.content["interpolations"] = {**other["interpolations"], **self.content["interpolations"]}
        self.content = {**other, **self.content}
        self.write()

    def has(self, table: str, title: str, seed: int) -> bool:
        """Whether a row is there."""
        return str(seed) in self.content["rows"].get(table, {}).get(title, {}).get("seeds", {})

    def interpolations(self, task: Task, score: Callable[[], dict[str, Any]]) -> Mapping[str, Any]:
        """Title -> scores of the interpolations at a task's factor, which are scored if they are not there."""
        name = f"{task.factor:g}"
        if name not in self.content["interpolations"]:
            self.content["interpolations"][name] = score()
            self.write()
        return self.content["interpolations"][name]

    def add(self, table: str, row: Row, seed: int, entry: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """Take in the scores of a row and the seconds of what was trained for it, and write the file."""
        rows = self.content["rows"].setdefault(table, {})
        rows.setdefault(row.title, {"kind": row.kind, "seeds": {}})["seeds"][str(seed)] = entry
        self.content["seconds"].setdefault(str(seed), {}).update(seconds)
        self.write()

    def arrange(self, order: Iterable[tuple[str, Row]]) -> None:
        """Put the rows in an order, whenever each was run."""
        there = self.content["rows"]
        self.content["rows"] = {}
        for table, row in order:
            if row.title in there.get(table, {}):
                self.content["rows"].setdefault(table, {})[row.title] = there[table][row.title]
        self.write()

    def write(self) -> None:
        """Bring the file up to date."""
        write_json(self.path, self.content)


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
    """Write the coarse volume, interpolated along Z, on the grid of the truth and in whole gray levels, unless it is there."""
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


def segmentations(data: Path, sizes: Mapping[str, Any], slices: int, folder: Path) -> list[MembraneBenchmark]:
    """Table 2's networks, one a seed.

    Args:
        data: folder with ``test.ome.tif`` and ``test_neurons.ome.tif``.
        sizes: a section of ``tables.yaml``.
        slices: of a reconstruction.
        folder: of the weights, which are trained when there are none.
    """
    settings = sizes["segmentation"]
    files = data / "test.ome.tif", data / "test_neurons.ome.tif"
    return [MembraneBenchmark(folder, *files, settings["network"], seed, slices) for seed in settings["seeds"]]


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
    """Train what a row needs and score it; returns the entry of the row and the seconds of what was trained for it now."""
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


def rows(recipes: Recipes, tasks: Mapping[float, Task]) -> Iterator[tuple[str, Row]]:
    """Every row of every table of one seed; the further ones are of the first seed alone."""
    tables = {"table 1": recipes.table_1(), "table 3": recipes.table_3(), "restorations": recipes.restorations()}
    if recipes.seed == recipes.sizes["seeds"][0]:
        tables.update({"lengths": recipes.other_lengths(), "factors": recipes.other_factors(tasks)})
    for table, listed in tables.items():
        for row in listed:
            yield table, row


def measure(
    work: Path,
    data: Path,
    light: Path | None,
    sizes: Mapping[str, Any],
    results: Results,
    wanted: str,
    figures: Path,
) -> None:
    """Train and score the rows that are not in the results yet.

    Args:
        work: weights and volumes go here.
        data: folder with ``train.ome.tif``, ``test.ome.tif`` and ``test_neurons.ome.tif``, isotropic.
        light: volume of a light microscope, or None to leave it out.
        sizes: a section of ``tables.yaml``.
        results: takes the scores.
        wanted: regular expression; a row is run if it is found in "table, title, seed N"; "light microscopy" is one.
        figures: folder of the pictures of the page.
    """
    every = [Recipes(work, data, sizes, seed) for seed in sizes["seeds"]]
    main = every[0].task
    slices = lattice.covered_size(read_header(main.truth).shape[2], main.factor)
    networks = segmentations(data, sizes, slices, results.path.parent / "membranes")
    tasks = {
        factor: main if factor == main.factor else make_task(main.truth, factor, work) for factor in sizes["factors"]
    }
    results.interpolations(main, lambda: score_interpolations(every[0], networks, results))
    for recipes in every:
        for table, row in rows(recipes, tasks):
            name = f"{table}, {row.title}, seed {recipes.seed}"
            if results.has(table, row.title, recipes.seed) or not re.search(wanted, name):
                continue
            begin = time.monotonic()
            baselines = results.interpolations(row.task, partial(score_aligned, row.task, work))
            entry, seconds = score_row(row, networks if table == "table 1" else [], baselines)
            if row.pictured:
                draw_best_and_worst(row.volume, row.task.truth, sizes["factor"], figures)
            results.add(table, row, recipes.seed, entry, seconds)
            print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    results.arrange(rows(every[0], tasks))
    if light is not None and re.search(wanted, LIGHT) and LIGHT not in results.content:
        results.content[LIGHT] = draw_light_microscopy(light, sizes[LIGHT], work / "light", figures)
        results.write()
    timed = timed_rows(results.content)
    if timed:
        draw_training_time(timed, figures / FIGURE)


def make_toy_data(folder: Path, factor: int) -> Path:
    """Two phantoms in the place of FIB-25, with the cells of one."""
    for name, seed in (("train", 0), ("test", 1)):
        if not (folder / f"{name}.ome.tif").is_file():
            truth, _ = write_sample(folder / name, (64, 64, 16 * factor + 1), factor, seed)
            write_volume(read_volume(truth), folder / f"{name}.ome.tif")
    labels = folder / "test_neurons.ome.tif"
    if not labels.is_file():
        volume = read_volume(folder / "test.ome.tif")
        # the phantom has no labels: what is bright stands for cells
        gray = tissue((64, 64, 16 * factor + 1), seed, noise=0).astype(np.float32)
        cells = cells_from_membranes(-gray, -105, 20, lattice.voxel_size(volume.affine.numpy()))
        neurons = MetaTensor(torch.from_numpy(cells[None].astype(np.float32))).copy_meta_from(volume)
        neurons.meta["dtype"] = "uint16"
        write_volume(neurons, labels)
    return folder


def main() -> None:
    """Train, score, and write the page."""
    sections = yaml.safe_load((Path(__file__).parent / "tables.yaml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=sections, default="paper", help="a section of tables.yaml; toy needs no data")
    parser.add_argument(
        "--data", type=Path, help="folder with train.ome.tif, test.ome.tif and test_neurons.ome.tif, isotropic"
    )
    parser.add_argument("--light", type=Path, help="a volume of a light microscope, to draw its reconstruction too")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "tables", help="weights, volumes and scores go here"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(__file__).parent / "tables.json",
        help="what has been measured; is continued",
    )
    parser.add_argument(
        "--rows", default="", help='run these alone: a regular expression of "table 1, Sup-AENet, seed 0"'
    )
    parser.add_argument(
        "--join",
        type=Path,
        nargs="+",
        default=[],
        help="take in results that other machines or GPUs wrote, each run with --rows, --results and --work of its own",
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page to write")
    arguments = parser.parse_args()
    sizes = sections[arguments.size]
    if arguments.size == "toy":
        arguments.data = make_toy_data(arguments.work / "data", sizes["factor"])
        arguments.light = arguments.data / "train.ome.tif"
    elif arguments.data is None:
        parser.error("--data: name the folder with train.ome.tif, test.ome.tif and test_neurons.ome.tif")
    arguments.work.mkdir(parents=True, exist_ok=True)
    data, figures = arguments.data.resolve(), arguments.page.parent
    try:
        results = Results(arguments.results, sizes)
        for path in arguments.join:
            results.join(path)
        measure(arguments.work, data, arguments.light, sizes, results, arguments.rows, figures)
    except InputError as error:
        parser.error(str(error))
    text = page(results.content)
    write_whole(arguments.page, lambda partial: partial.write_text(text, encoding="utf-8"))
    print(f"wrote {arguments.results} and {arguments.page}")


if __name__ == "__main__":
    main()
