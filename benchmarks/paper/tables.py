# SPDX-License-Identifier: Apache-2.0
"""The paper's tables, trained and scored again through the bundle's own configs: ``make benchmark``.

What is trained for how long, and the rule by which it was chosen, stands in ``tables.yaml``. Every row that is finished
is kept in the file of results, and what is in it is not done again: not after an interruption, and not on another
machine that the file was taken to.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from scripts import lattice
from scripts.errors import InputError
from scripts.volumes.reading import read_header
from scripts.volumes.whole_file import write_whole

from benchmarks.paper.cases import draw_best_and_worst
from benchmarks.paper.light_microscopy import LIGHT, draw_light_microscopy
from benchmarks.paper.page import page
from benchmarks.paper.recipes import Recipes, Row
from benchmarks.paper.results import Results
from benchmarks.paper.scoring import score_aligned, score_interpolations, score_row
from benchmarks.paper.segmentation import MembraneBenchmark
from benchmarks.paper.tasks import Task, make_task
from benchmarks.paper.toy_data import make_toy_data
from benchmarks.paper.training_time import FIGURE, draw_training_time, timed_rows

ROOT = Path(__file__).resolve().parents[2]


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


def rows(recipes: Recipes, tasks: Mapping[float, Task]) -> Iterator[tuple[str, Row]]:
    """Every row of every table of one seed; the further ones are of the first seed alone."""
    tables = {"table 1": recipes.table_1(), "table 3": recipes.table_3(), "restorations": recipes.restorations()}
    if recipes.seed == recipes.sizes["seeds"][0]:
        tables.update({"lengths": recipes.other_lengths(), "factors": recipes.other_factors(tasks)})
    for table, listed in tables.items():
        for row in listed:
            yield table, row


def measure(
    work: Path, data: Path, light: Path | None, sizes: Mapping[str, Any], results: Results, wanted: str, figures: Path
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
