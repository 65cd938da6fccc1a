# SPDX-License-Identifier: Apache-2.0
"""Draws the lattice for the page about it: ``python docs/draw_lattice.py lattice.svg``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts import lattice

SLICES = 5
FACTORS = (4, 2.5)
SHOWN = {4: 6, 2.5: 1}
"""Factor -> the output slice whose window is marked: one in the middle, and one in the first interval."""

INPUT, KEPT, NEW, MARK = "#37474f", "#37474f", "#ef6c00", "#1e88e5"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "lattice",
    "svg.fonttype": "path",
    "font.size": 10,
    "font.family": "DejaVu Sans",
}


def draw_lattice() -> bytes:
    """Return the drawing as SVG: a row of input slices for each factor, the output slices below it, and a window."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(9.5, 6.4), layout="constrained", facecolor="white")
        for axes, factor in zip(figure.subplots(len(FACTORS), 1), FACTORS):
            _draw_factor(axes, factor)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def _draw_factor(axes: Axes, factor: float) -> None:
    places = lattice.positions(SLICES, factor)
    chosen = SHOWN[factor]
    for i in range(SLICES):
        axes.plot([i, i], [1.0, 1.5], color=INPUT, linewidth=5, solid_capstyle="butt")
        axes.text(i, 1.58, f"slice {i}", ha="center", va="bottom", color=INPUT)
    for j, place in enumerate(places):
        at, kept = place.interval + place.relative_depth, place.relative_depth == 0
        color = KEPT if kept else NEW
        axes.plot([at, at], [0.1, 0.6], color=color, linewidth=5 if kept else 2.5, solid_capstyle="butt")
        axes.text(at, 0.03, str(j), ha="center", va="top", color=color)
        if kept:
            axes.plot([at, at], [0.64, 0.96], color=KEPT, linewidth=0.8, linestyle=":")

    place = places[chosen]
    for n, index in enumerate(lattice.window(place.interval, SLICES)):
        repeated = place.interval + n - 1 != index
        x = place.interval + n - 1
        axes.add_patch(Rectangle((x - 0.09, 0.94), 0.18, 0.62, fill=False, edgecolor=MARK, linewidth=1.5))
        if repeated:
            axes.plot([x, x], [1.0, 1.5], color=INPUT, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.text(x, 1.58, f"slice {index} again", ha="center", va="bottom", color=MARK)
    at = place.interval + place.relative_depth
    axes.annotate(
        f"output {chosen}: {chosen} / {factor:g} = {at:g}, so relative depth {place.relative_depth:g} in interval "
        f"{place.interval}",
        xy=(at, -0.12),
        xytext=(max(at, 1) + 0.15, -0.27),  # to the right of it, in the row between the numbers and the intervals
        va="center",
        color=MARK,
        arrowprops={"arrowstyle": "->", "color": MARK, "shrinkB": 1, "relpos": (0, 0.5)},
    )
    axes.annotate("", (0, -0.47), (1, -0.47), arrowprops={"arrowstyle": "|-|,widthA=0.3,widthB=0.3", "color": INPUT})
    axes.text(0.5, -0.53, "first interval", ha="center", va="top", color=INPUT)
    last = SLICES - 1
    axes.annotate(
        "", (last - 1, -0.47), (last, -0.47), arrowprops={"arrowstyle": "|-|,widthA=0.3,widthB=0.3", "color": INPUT}
    )
    axes.text(last - 0.5, -0.53, "last interval", ha="center", va="top", color=INPUT)
    axes.set_title(f"{SLICES} slices at factor {factor:g} give {len(places)}", loc="left", fontweight="bold")
    axes.set(xlim=(-1.4, SLICES - 0.6), ylim=(-0.77, 1.85))
    axes.axis("off")


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(draw_lattice())
