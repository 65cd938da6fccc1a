# SPDX-License-Identifier: Apache-2.0
"""What training for longer gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scripts.volumes.whole_file import write_whole

TABLES = ("table 1", "restorations", "lengths")
FIGURE = "benchmarks_time.png"
Timed = dict[str, tuple[str, list[dict[str, Any]]]]
"""Title of a row -> its kind and the entries of its seeds, with the "seconds" of all that was trained for each."""


def timed_rows(results: Mapping[str, Any]) -> Timed:
    """The rows at the main factor that something was trained for in a known time.

    Args:
        results: what ``tables.json`` holds.
    """
    found: Timed = {}
    for table in TABLES:
        for title, row in results["rows"].get(table, {}).items():
            known = []
            for seed, entry in row["seeds"].items():
                seconds = [results["seconds"].get(seed, {}).get(stage) for stage in entry["stages"]]
                if seconds and None not in seconds:
                    known.append({**entry, "seconds": sum(seconds)})
            if known:
                found[title] = row["kind"], known
    return found


def draw_training_time(rows: Timed, path: Path) -> None:
    """Draw the gain in PSNR, a mean over planes and seeds, against the seconds of training; supervised rows as open
    circles.

    Args:
        rows: of :func:`timed_rows`.
        path: of a PNG.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, (title, (kind, entries)) in enumerate(rows.items(), 1):
        seconds = float(np.mean([entry["seconds"] for entry in entries]))
        gain = float(np.mean([list(entry["gain"]["psnr"].values()) for entry in entries]))
        fill: Literal["none", "full"] = "none" if kind == "supervised" else "full"
        axes.plot(seconds, gain, "o", color=f"C{number % 10}", fillstyle=fill, label=f"{number}  {title}")
        axes.annotate(str(number), (seconds, gain), (4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="seconds of all trainings", ylabel="gain over interpolation in dB, mean of the planes")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=120))
