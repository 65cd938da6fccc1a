# SPDX-License-Identifier: Apache-2.0
"""The page of the documentation that the benchmark's results become."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.paper import light_microscopy
from benchmarks.paper.baselines import ALIGNED
from benchmarks.paper.cases import NAMES
from benchmarks.paper.recipes import AGAIN, NO_DIFFUSION, SELF_TRAINED, SHIPPED, SUPERVISED, TWICE, WHOLE, WHOLE_SRUNET
from benchmarks.paper.training_time import FIGURE, Timed, timed_rows
from scripts.evaluation.fourier_shell import THRESHOLDS
from scripts.evaluation.plane_scores import MEASURES, PLANES
from scripts.evaluation.tables import SYMBOLS, rounded_down

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


def page(results: Mapping[str, Any]) -> str:
    """Markdown of all tables.

    Args:
        results: what ``tables.json`` holds.
    """
    sizes, rows = results["sizes"], results["rows"]
    machines = sorted({entry["machine"] for table in rows.values() for row in table.values() for entry in _seeds(row)})
    first, interpolations = rows.get("table 1", {}), _interpolations(results, f"{sizes['factor']:g}")
    spread = (
        f" Where there are several of the seeds {', '.join(map(str, sizes['seeds']))}, a cell is their mean and, behind ±, half their range."
        if len(sizes["seeds"]) > 1
        else ""
    )
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make benchmark` from `benchmarks/tables.json`: test.ome.tif, every {sizes['factor']}th slice kept; rows run on "
        f"{', '.join(machines)}. What is trained for how long, and the rule by which it was chosen, stands in `benchmarks/tables.yaml`."
        f"{spread} Means are rounded to the worse side, spreads up.",
        "",
        "## Table 1: quality",
        "",
        "PSNR in dB and SSIM; higher is better. XY leaves out the slices that coincide with an input slice, XZ and YZ include them. Every AENet "
        f"of this table was trained for {_steps(sizes['aenet'])} steps; a self-trained one for as many after its teacher, and {TWICE} for both "
        f"together; every SRUNet for {_steps(sizes['srunet'])}, which take about as long as those of AENet; the shipped "
        "weights, those of `d2r.yaml --preset standard`, for longer.",
        "",
        *_score_table({**interpolations, **first}),
        "",
        *_pictures(first),
        "## What each part gives",
        "",
        "Scores of a method less those of another, seed by seed. The first two rows are what the diffusion stages give, without self-training and with it, "
        "the next two what self-training gives, with the diffusion stages and without.",
        "",
        *_difference_table(first, COMPARED),
        "",
        "## Resolution",
        "",
        f"By Fourier shell correlation with the truth, in {SYMBOLS.get(results['unit'], results['unit'])}; lower is better. 0.5 is the threshold for a "
        "comparison with a reference, 0.143 belongs to two independent halves and flatters here. Axial: within 30 degrees of Z. Kept slices "
        "that are copied agree with the truth exactly and lower all numbers; predicted ones do not. ≤: some seed agrees down to two voxels. Where a curve "
        "runs flat near its threshold the number jumps: two rows that differ in one column alone may hardly differ.",
        "",
        *_resolution_table({**interpolations, **first}),
        "",
        "## Table 2: membranes and cells",
        "",
        "A small U-Net, trained on the experts' cells in the first half of the true volume, finds membranes in the second half of each "
        f"reconstruction; a watershed makes cells of them. Seeds of the U-Net: {len(sizes['segmentation']['seeds'])}, which the spread is of too; for each, threshold "
        "and seed distance were chosen on the true first half by the adapted Rand error. IoU: higher is better; it is at that threshold, not at its own best. "
        "Adapted Rand error and variation of information (splits + merges, bits): lower is better.",
        "",
        "Against the cells that the same U-Net finds in the truth, as in the paper:",
        "",
        *_cell_table(results, "against the truth's segmentation"),
        "",
        "Against the experts' cells:",
        "",
        *_cell_table(results, "against the experts' labels"),
    ]
    if "table 3" in rows:
        lines += ["", "## Table 3: the prior_factor k of stage II", "", *_score_table(rows["table 3"])]
    if "restorations" in rows:
        lines += ["", *_restorations(first, rows["restorations"], sizes)]
    if "factors" in rows:
        lines += [
            "",
            "## Other factors",
            "",
            "One network for all factors, as shipped and self-trained for fewer steps, beside one that has learned a single factor, from the same teacher "
            "and for as many steps. No slice lies at half a voxel: at a factor and a half all is measured on every second voxel along X, Y and Z, a grid "
            "twice as coarse as any of these networks has seen, and the network that knows it alone has learned the two whole factors around it.",
            "",
            *_factor_table(results),
        ]
    timed = timed_rows(results)
    if timed:
        lines += [
            "",
            "## Training time and score",
            "",
            "Seconds of all trainings behind a row, the diffusion included, as they were on that machine.",
            "",
            *_time_table(timed),
            "",
            f"![Gain against training time]({FIGURE})",
        ]
    if light_microscopy.LIGHT in results:
        lines += ["", *_light(results[light_microscopy.LIGHT])]
    return "\n".join(lines) + "\n"


def _restorations(first: Mapping[str, Any], others: Mapping[str, Any], sizes: Mapping[str, Any]) -> list[str]:
    beside = {title: first[title] for title in (WHOLE, SELF_TRAINED) if title in first}
    rows = {**beside, **others}
    compared = [(f"{title}, {name}", title) for title in beside for name in sizes["restorations"]]
    return [
        "## How stage II restores",
        "",
        f"Evaluations of the prior a slice in the rows of table 1: {sizes['generate']['num_steps']}, without noise on the way.",
        "",
        *_score_table(rows),
        "",
        "Each of the others less the row of table 1, seed by seed.",
        "",
        *_difference_table(rows, compared),
    ]


def _light(found: Mapping[str, Any]) -> list[str]:
    options = " ".join(f"--{name} {value}" for name, value in found["options"].items())
    return [
        "## Light microscopy",
        "",
        f"{found['volume']}, every {found['factor']}th slice kept, {found['slices']} in all; `d2r.yaml {options}` on these alone ({found['machine']}). "
        "The part of an XZ slice where grey levels vary most; a picture and no score, for the truth is not sharp: a light microscope blurs along Z "
        "more than in XY, in what it recorded (right) as in the kept slices. D2R fills in slices. It does not take away that blur, and where its prior "
        "makes XZ look as sharp as XY, the sharpness is a guess. "
        f"Data: {found['source']}.",
        "",
        f"![XZ slice of a light microscope's volume: input, interpolation, reconstruction, recorded]({light_microscopy.FIGURE})",
    ]


def _steps(lengths: Mapping[str, Any]) -> int:
    return int(lengths["max_epochs"] * lengths["epoch_length"])


def _pictures(rows: Mapping[str, Any]) -> list[str]:
    if SHIPPED not in rows:
        return []
    text = (
        f"Of {SHIPPED}: the part of an XZ slice, 96 voxels wide, that gains most over linear interpolation, and the one that gains least. "
        "Data: FIB-25, FlyEM, HHMI Janelia (Takemura et al., PNAS 2015), CC BY."
    )
    return [text, "", *(f"![The {name} part](benchmarks_{name}.png)\n" for name in NAMES)]


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


def _score_table(rows: Mapping[str, Any]) -> list[str]:
    return _table(SCORES, [(title, row["kind"], _seeds(row)) for title, row in rows.items()], _score_cells)


def _difference_table(rows: Mapping[str, Any], compared: Sequence[tuple[str, str]]) -> list[str]:
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


def _factor_table(results: Mapping[str, Any]) -> list[str]:
    """The rows of other factors, each factor's after its interpolations."""
    rows: dict[str, Any] = {}
    for title, row in results["rows"]["factors"].items():
        factor = title.partition(":")[0]
        for name, baseline in _interpolations(results, factor.removeprefix("x")).items():
            if name in ALIGNED:
                rows[f"{factor}: {name}"] = baseline
        rows[title] = row
    return _score_table(rows)


def _resolution_table(rows: Mapping[str, Any]) -> list[str]:
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
        predicted = [entry["kept slices predicted"] for entry in entries if "kept slices predicted" in entry]
        if predicted:
            listed.append((title, "predicted", predicted))
    return _table(head, listed, cells, "kept slices")


def _cell_table(results: Mapping[str, Any], reference: str) -> list[str]:
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


def _time_table(rows: Timed) -> list[str]:
    def cells(entries: Seeds) -> list[str]:
        return [mean_and_spread([e["seconds"] for e in entries], 0, lower=True), *_score_cells(entries)]

    return _table(["seconds", *SCORES], [(title, *row) for title, row in rows.items()], cells)


def _table(
    head: Sequence[str],
    rows: Sequence[tuple[str, str, Seeds]],
    cells: Callable[[Seeds], list[str]],
    second: str = "kind",
) -> list[str]:
    lines = [f"| method | {second} | {' | '.join(head)} |", "|---|---|" + "---:|" * len(head)]
    lines += [f"| {title} | {kind} | {' | '.join(cells(entries))} |" for title, kind, entries in rows if entries]
    return lines


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
