# SPDX-License-Identifier: Apache-2.0
"""The page of the documentation that the benchmark's results become: its tables; the prose is in ``page.md.j2``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scripts.evaluation.fourier_shell import CONE, THRESHOLDS
from scripts.evaluation.plane_scores import MEASURES, PLANES
from scripts.evaluation.tables import SYMBOLS, rounded_down

from benchmarks.paper import light_microscopy
from benchmarks.paper.baselines import ALIGNED
from benchmarks.paper.cases import NAMES
from benchmarks.paper.recipes import AGAIN, NO_DIFFUSION, SELF_TRAINED, SHIPPED, SUPERVISED, TWICE, WHOLE, WHOLE_SRUNET
from benchmarks.paper.training_time import FIGURE, Timed, timed_rows
from benchmarks.template import fill

Seeds = Sequence[Mapping[str, Any]]
"""The entries of a row, one a seed."""

DIRECTIONS = ("whole", "axial")
COMPARED = (
    (WHOLE, NO_DIFFUSION),
    (SELF_TRAINED, NO_DIFFUSION + AGAIN),
    (SELF_TRAINED, WHOLE),
    (NO_DIFFUSION + AGAIN, NO_DIFFUSION),
    (WHOLE, WHOLE_SRUNET),
    (WHOLE, SUPERVISED),
    (SELF_TRAINED, SUPERVISED),
    (SELF_TRAINED, TWICE),
)
SCORES = [f"{measure.upper()} {plane.upper()}" for measure in MEASURES for plane in PLANES]


class Table(NamedTuple):
    """A table of the page.

    Attributes:
        second: heading of the second column, behind that of the methods.
        head: headings of the columns of numbers.
        rows: text of all cells, the first two of a row its method and what the second column tells.
    """

    second: str
    head: Sequence[str]
    rows: list[list[str]]


def page(results: Mapping[str, Any]) -> str:
    """Markdown of all tables.

    Args:
        results: what ``tables.json`` holds.
    """
    sizes, rows = results["sizes"], results["rows"]
    first, interpolations = rows.get("table 1", {}), _interpolations(results, f"{sizes['factor']:g}")
    restored, compared = _restorations(first, rows["restorations"], sizes) if "restorations" in rows else (None, None)
    timed = timed_rows(results)
    return fill(
        Path(__file__).with_name("page.md.j2"),
        sizes=sizes,
        machines=sorted({entry["machine"] for each in rows.values() for row in each.values() for entry in _seeds(row)}),
        steps=_steps,
        unit=SYMBOLS.get(results["unit"], results["unit"]),
        cone=CONE,
        twice=TWICE,
        shipped=SHIPPED,
        pictured=SHIPPED in first,
        pictures=NAMES,
        quality=_score_table({**interpolations, **first}),
        parts=_difference_table(first, COMPARED),
        resolution=_resolution_table({**interpolations, **first}),
        cells_of_truth=_cell_table(results, "against the truth's segmentation"),
        cells_of_experts=_cell_table(results, "against the experts' labels"),
        prior_factors=_score_table(rows["table 3"]) if "table 3" in rows else None,
        restorations=restored,
        restorations_compared=compared,
        factors=_factor_table(results) if "factors" in rows else None,
        times=_time_table(timed) if timed else None,
        time_figure=FIGURE,
        light=results.get(light_microscopy.LIGHT),
        light_figure=light_microscopy.FIGURE,
    )


def _restorations(first: Mapping[str, Any], others: Mapping[str, Any], sizes: Mapping[str, Any]) -> tuple[Table, Table]:
    """Other ways of stage II beside that of table 1, and each of them less that of table 1."""
    beside = {title: first[title] for title in (WHOLE, SELF_TRAINED) if title in first}
    rows = {**beside, **others}
    compared = [(f"{title}, {name}", title) for title in beside for name in sizes["restorations"]]
    return _score_table(rows), _difference_table(rows, compared)


def _steps(lengths: Mapping[str, Any]) -> int:
    return int(lengths["max_epochs"] * lengths["epoch_length"])


def _seeds(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(row["seeds"].values())


def _interpolations(results: Mapping[str, Any], factor: str) -> dict[str, Any]:
    return {
        title: {"kind": "interpolation", "seeds": {"": entry}}
        for title, entry in results["interpolations"][factor].items()
    }


def _score_cells(entries: Seeds) -> list[str]:
    return [
        mean_and_spread([entry["scores"][measure][plane] for entry in entries], digits)
        for measure, digits in zip(MEASURES, (2, 3))
        for plane in PLANES
    ]


def _score_table(rows: Mapping[str, Any]) -> Table:
    return _table(SCORES, [(title, row["kind"], _seeds(row)) for title, row in rows.items()], _score_cells)


def _difference_table(rows: Mapping[str, Any], compared: Sequence[tuple[str, str]]) -> Table:
    listed = []
    for one, other in compared:
        seeds = [rows[title]["seeds"] for title in (one, other) if title in rows]
        if len(seeds) == 2 and (common := sorted({*seeds[0]} & {*seeds[1]})):
            pairs = [[scored[seed]["scores"] for scored in seeds] for seed in common]
            entries = [
                {"scores": {name: {plane: a[name][plane] - b[name][plane] for plane in PLANES} for name in MEASURES}}
                for a, b in pairs
            ]
            listed.append((f"{one} less {other}", ", ".join(common), entries))
    return _table(SCORES, listed, _score_cells, "seeds")


def _factor_table(results: Mapping[str, Any]) -> Table:
    """The rows of other factors, each factor's after its interpolations."""
    rows: dict[str, Any] = {}
    for title, row in results["rows"]["factors"].items():
        factor = title.partition(":")[0]
        for name, baseline in _interpolations(results, factor.removeprefix("x")).items():
            if name in ALIGNED:
                rows[f"{factor}: {name}"] = baseline
        rows[title] = row
    return _score_table(rows)


def _resolution_table(rows: Mapping[str, Any]) -> Table:
    head = [f"{direction} at {threshold:g}" for threshold in THRESHOLDS for direction in DIRECTIONS]

    def cells(entries: Seeds) -> list[str]:
        found = []
        for threshold in THRESHOLDS:
            for direction in DIRECTIONS:
                crossings = [entry["resolution"][direction][f"{threshold:g}"] for entry in entries]
                sign = "" if all(crossing["crossed"] for crossing in crossings) else "≤ "
                found.append(sign + mean_and_spread([crossing["length"] for crossing in crossings], 1, lower=True))
        return found

    listed = []
    for title, row in rows.items():
        entries = _seeds(row)
        listed.append((title, "copied", entries))
        predicted = [entry["input slices predicted"] for entry in entries if "input slices predicted" in entry]
        if predicted:
            listed.append((title, "predicted", predicted))
    return _table(head, listed, cells, "input slices")


def _cell_table(results: Mapping[str, Any], reference: str) -> Table:
    measures = {
        "membrane_iou": ("IoU", 3, False),
        "adapted_rand_error": ("Rand error", 3, True),
        "splits": ("splits", 2, True),
        "merges": ("merges", 2, True),
        "variation_of_information": ("VoI", 2, True),
    }
    rows = {
        "the truth": {"kind": "", "seeds": {"": results["truth"]}},
        **_interpolations(results, f"{results['sizes']['factor']:g}"),
        **results["rows"].get("table 1", {}),
    }
    listed = []
    for title, row in rows.items():
        found = [scores[reference] for entry in _seeds(row) for scores in entry.get("segmentation", {}).values()]
        listed.append((title, row["kind"], found))

    def cells(entries: Seeds) -> list[str]:
        return [
            mean_and_spread([max(entry[name], 0.0) for entry in entries], digits, lower)
            for name, (_, digits, lower) in measures.items()
        ]

    return _table([title for title, _, _ in measures.values()], listed, cells)


def _time_table(rows: Timed) -> Table:
    def cells(entries: Seeds) -> list[str]:
        return [mean_and_spread([e["seconds"] for e in entries], 0, lower=True), *_score_cells(entries)]

    return _table(["seconds", *SCORES], [(title, *row) for title, row in rows.items()], cells)


def _table(
    head: Sequence[str],
    rows: Sequence[tuple[str, str, Seeds]],
    cells: Callable[[Seeds], list[str]],
    second: str = "kind",
) -> Table:
    return Table(second, head, [[title, kind, *cells(entries)] for title, kind, entries in rows if entries])


def mean_and_spread(values: Sequence[float], digits: int, lower: bool = False) -> str:
    """The mean, rounded to its worse side, and half the range of several values, rounded up.

    Args:
        values: one a seed.
        digits: decimals.
        lower: whether lower values are better.
    """
    mean = float(np.mean(values))
    rounded = -rounded_down(-mean, digits) if lower else rounded_down(mean, digits)
    cell = f"{rounded + 0.0:.{digits}f}"  # no minus before a zero
    if len(values) > 1 and math.isfinite(mean):
        cell += f" ± {-rounded_down(-float(np.ptp(values)) / 2, digits) + 0.0:.{digits}f}"
    return cell
