# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures that a person looks at."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from scipy import ndimage

from scripts.errors import InputError
from scripts.evaluation.fourier_shell import CONE, THRESHOLDS, Curve
from scripts.evaluation.plane_scores import MEASURES, PLANES
from scripts.volumes.whole_file import write_whole

SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "px"}
_LARGER = {"nanometer": "micrometer", "micrometer": "millimeter"}
_DPI = 150
_COLUMN = 3.3  # inches, the width of one picture
_LONGEST = 1.5  # sides of a picture; of a longer slice the middle is shown
_HIGHLIGHT = "#ffd23f"
_RESULT = "#d1495b"
_CURVES = ("#8d99ae", "#2b6cb0", "#66a182", "#edae49")


def score_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], gain: Mapping | None = None) -> str:
    """Scores as a plain text table that is Markdown as well.

    Args:
        rows: name of a volume -> its scores, as `metrics.plane_scores` gives them.
        gain: from `metrics.gains`; becomes a last row of signed numbers.

    Returns:
        The table and a line that says what the XY scores leave out; no newline at the end.
    """
    header = [""] + [f"{measure.upper()} {plane.upper()}" for measure in MEASURES for plane in PLANES]
    body = [[_cell(name)] + _numbers(scores, "") for name, scores in rows.items()]
    if gain is not None:
        body.append(["gain"] + _numbers(gain, "+"))
    note = (
        "PSNR in dB, rounded down. XY leaves out the slices that coincide with an input slice, XZ and YZ include them."
    )
    return f"{_table(header, body)}\n\n{note}"


def resolution_table(rows: Mapping[str, Mapping[str, Curve]], unit: str = "pixel") -> str:
    """Resolutions by Fourier shell correlation as a plain text table that is Markdown as well.

    Args:
        rows: name of a volume -> its curves, as `fourier_shell.shell_correlation` gives them.
        unit: of the voxel size.

    Returns:
        The table and a few lines that say what its numbers are; no newline at the end.
    """
    symbol = SYMBOLS.get(unit, unit)
    columns = [(threshold, direction) for threshold in THRESHOLDS for direction in ("whole", "axial")]
    header = [f"FSC, {symbol}"] + [f"{direction} {threshold:g}" for threshold, direction in columns]
    body = []
    for name, curves in rows.items():
        cells = []
        for threshold, direction in columns:
            length, crossed = curves[direction].resolution(threshold)
            digits = max(0, 2 - math.floor(math.log10(curves[direction].finest)))  # a twentieth of a voxel or finer
            cells.append(("" if crossed else "<= ") + f"{-rounded_down(-length, digits):.{digits}f}")
        body.append([_cell(name)] + cells)
    notes = [
        f"Resolution in {symbol} by Fourier shell correlation with the truth, rounded up: lower is better. <=: agrees down to 2 voxels.",
        "0.5 is the threshold for a comparison with a reference; 0.143 belongs to two independent halves and flatters here.",
        f"Axial: within {CONE:g} degrees of Z. Slices copied from the input agree with the truth exactly and lower all these numbers.",
    ]
    return "\n".join([_table(header, body), "", *notes])


def _cell(name: str) -> str:
    return name.replace("|", "/")


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown with its columns aligned, the first to the left."""
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:])]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (w + 1) + ":" for w in widths[1:]]) + "|"
    return "\n".join([line(header), rule, *map(line, body)])


def _numbers(scores: Mapping[str, Mapping[str, float]], sign: str) -> list[str]:
    digits = {"psnr": 2, "ssim": 3}
    return [
        f"{rounded_down(float(scores[measure][plane]), digits[measure]):{sign}.{digits[measure]}f}"
        for measure in MEASURES
        for plane in PLANES
    ]


def rounded_down(value: float, digits: int) -> float:
    """``value`` cut to ``digits`` decimals: what is shown must not promise more than was measured."""
    # The small number absorbs how 25.5 is stored.
    return math.floor(value * 10**digits + 1e-6) / 10 ** digits if math.isfinite(value) else value


def compare_slices(
    path: str | os.PathLike,
    volumes: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    unit: str = "pixel",
    factor: float = 1.0,
    plane: str = "xz",
    index: int | None = None,
    captions: Mapping[str, str] | None = None,
) -> None:
    """Draw the same slice of several volumes side by side, with an enlarged part below, as a PNG.

    All share one grey window, that of the last volume. Voxels are drawn as blocks of their true size, so the input shows
    its coarse slices. Of a slice much longer than wide the middle is shown.

    Args:
        path: the file; replaced when it exists.
        volumes: title -> array (X, Y, Z), in the order of the columns; the truth, or else the result, last.
        spacing: voxel size (x, y, z) of the volumes with the most slices.
        unit: of the spacing: "micrometer", "nanometer", "millimeter" or "pixel".
        factor: how many times wider apart the slices are in a volume that has fewer of them.
        plane: "xy" (for volumes of equal depth), "xz" or "yz".
        index: which slice; the middle one by default.
        captions: title -> a second line under that title, its score for example.

    Raises:
        InputError: for an unknown plane or an index outside the volume, or if the file cannot be written.
    """
    if plane not in PLANES:
        raise InputError(f"plane '{plane}' is unknown: choose one of {', '.join(PLANES)}")
    axis = PLANES[plane]
    arrays = {name: np.asarray(volume) for name, volume in volumes.items()}
    depth = max(a.shape[2] for a in arrays.values())
    size = min(a.shape[axis] for a in arrays.values())
    index = size // 2 if index is None else index
    if not 0 <= index < size:
        raise InputError(f"slice {index} is outside the volume: {plane.upper()} has slices 0 to {size - 1}")

    panels = []
    for name, array in arrays.items():
        step = np.array(spacing, dtype=float)
        step[2] *= factor if array.shape[2] < depth else 1.0
        panels.append((name, array.take(index, axis=axis).astype(np.float32).T, np.delete(step, axis)))
    reference, step = panels[-1][1:]
    window = tuple(np.percentile(reference, (0.5, 99.5)))
    view = _middle(reference.shape, step)
    detail = _richest(reference, step, view)

    height = _COLUMN * (view[3] - view[2]) / (view[1] - view[0])
    titles = 0.62 if captions else 0.38
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(_COLUMN * len(panels), height + _COLUMN + titles), dpi=_DPI, layout=layout)
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=(height, _COLUMN))
    for column, (name, image, step) in zip(axes.T, panels):
        for ax, part in zip(column, (view, detail)):
            _draw(ax, image, step, part, cmap="gray", vmin=window[0], vmax=window[1])
        column[0].set_title(name, fontsize=13, fontweight="bold" if name == panels[-1][0] else "normal")
        if captions and name in captions:
            column[0].set_title(f"{name}\n{captions[name]}", fontsize=12)
        corner, width, tall = (detail[0], detail[2]), detail[1] - detail[0], detail[3] - detail[2]
        column[0].add_patch(Rectangle(corner, width, tall, fill=False, edgecolor=_HIGHLIGHT, linewidth=1.4))
        for spine in column[1].spines.values():
            spine.set(visible=True, edgecolor=_HIGHLIGHT, linewidth=1.8)
    for ax, part in zip(axes[:, 0], (view, detail)):
        _scale_bar(ax, part, unit)
    axes[0, 0].set_ylabel(f"{plane.upper()}, slice {index}", fontsize=11)
    axes[1, 0].set_ylabel("enlarged", fontsize=11)
    _save(figure, path)


def show_disagreement(
    path: str | os.PathLike,
    pseudo: np.ndarray,
    disagreement: np.ndarray,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
) -> None:
    """Draw the middle XZ and YZ slices of a pseudo-HR volume above the map of where its two restorations differ.

    Args:
        path: the PNG; replaced when it exists.
        pseudo: pseudo-HR volume (X, Y, Z).
        disagreement: how far the XZ and YZ restorations are apart, same shape, in grey levels of `pseudo`.
        spacing: voxel size (x, y, z).
        unit: of the spacing.

    Raises:
        InputError: if the shapes differ or the file cannot be written.
    """
    pseudo, disagreement = np.asarray(pseudo), np.asarray(disagreement)
    if pseudo.shape != disagreement.shape:
        raise InputError(f"pseudo-HR volume {pseudo.shape} and disagreement map {disagreement.shape} differ in size")
    slices = {}
    for plane in ("xz", "yz"):
        axis = PLANES[plane]
        pair = [v.take(v.shape[axis] // 2, axis=axis).astype(np.float32).T for v in (pseudo, disagreement)]
        slices[plane] = (*pair, np.delete(np.array(spacing, dtype=float), axis))
    window = np.percentile(np.concatenate([s[0].ravel() for s in slices.values()]), (0.5, 99.5))
    highest = max(float(np.percentile(np.concatenate([s[1].ravel() for s in slices.values()]), 99.5)), 1e-6)

    views = {plane: _middle(image.shape, step) for plane, (image, _, step) in slices.items()}
    height = _COLUMN * 1.3 * max((v[3] - v[2]) / (v[1] - v[0]) for v in views.values())
    figure = Figure(figsize=(_COLUMN * 2.6 + 0.9, 2 * height + 0.5), dpi=_DPI, layout="constrained")
    axes = figure.subplots(2, 2)
    for column, (plane, (image, difference, step)) in zip(axes.T, slices.items()):
        _draw(column[0], image, step, views[plane], cmap="gray", vmin=window[0], vmax=window[1])
        heat = _draw(column[1], difference, step, views[plane], cmap="magma", vmin=0.0, vmax=highest)
        column[0].set_title(plane.upper(), fontsize=13)
    _scale_bar(axes[0, 0], views["xz"], unit)
    axes[0, 0].set_ylabel("pseudo-HR", fontsize=11)
    axes[1, 0].set_ylabel("disagreement of XZ and YZ", fontsize=11)
    figure.colorbar(heat, ax=axes[1, :], label="grey levels", extend="max", fraction=0.05, pad=0.01)
    _save(figure, path)


def draw_correlations(path: str | os.PathLike, rows: Mapping[str, Mapping[str, Curve]], unit: str = "pixel") -> None:
    """Draw Fourier shell correlations by spatial frequency, whole and axial, with the thresholds, as a PNG.

    Args:
        path: the file; replaced when it exists.
        rows: name of a volume -> its curves, as `fourier_shell.shell_correlation` gives them; the result last.
        unit: of the voxel size.

    Raises:
        InputError: if the file cannot be written.
    """
    symbol = SYMBOLS.get(unit, unit)
    figure = Figure(figsize=(2.4 * _COLUMN, 1.5 * _COLUMN), dpi=_DPI, layout="constrained")
    ax = figure.subplots()
    styles = {"whole": "-", "axial": "--"}
    others = iter(_CURVES)
    for name, curves in rows.items():
        last = name == list(rows)[-1]
        colour = _RESULT if last else next(others, "0.5")
        for direction, style in styles.items():
            # A correlation is 1 at frequency 0, where there is no shell.
            frequency, correlation = (
                np.concatenate([[first], values])
                for first, values in ((0, curves[direction].frequency), (1, curves[direction].correlation))
            )
            label = name if direction == "whole" else None
            ax.plot(frequency, correlation, style, color=colour, label=label, linewidth=2.0 if last else 1.3)
    for direction, style in styles.items():
        ax.plot([], [], style, color="0.25", label="all directions" if direction == "whole" else "axial")
    drawn = [curve for curves in rows.values() for curve in curves.values()]
    end, lowest = max(1 / curve.finest for curve in drawn), min(float(curve.correlation.min()) for curve in drawn)
    for threshold in THRESHOLDS:
        ax.axhline(threshold, color="0.6", linewidth=0.8, zorder=0)
        ax.text(1.01 * end, threshold, f"{threshold:g}", color="0.4", va="center", fontsize=10)
    ax.set(xlim=(0, end), ylim=(min(0, lowest) - 0.02, 1.02))
    ax.set_ylabel("correlation with the truth", fontsize=11)
    ax.set_xlabel(f"spatial frequency (1/{symbol})", fontsize=11)
    ax.legend(fontsize=10, frameon=False)
    top = ax.secondary_xaxis("top")
    ticks = np.linspace(0, end, 6)[1:]
    top.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    top.set_xlabel(f"wave length ({symbol})", fontsize=11)
    _save(figure, path)


_Part = tuple[float, float, float, float]
"""A rectangle of a slice in units of length: left, right, top, bottom."""


def _draw(ax: Axes, image: np.ndarray, step: np.ndarray, part: _Part, **style: Any) -> Any:
    """Show the rectangle `part` of an image whose voxel (0, 0) is centred at the origin; rows run downwards."""
    rows, columns = image.shape
    extent = (-0.5 * step[0], (columns - 0.5) * step[0], (rows - 0.5) * step[1], -0.5 * step[1])
    artist = ax.imshow(image, extent=extent, interpolation="nearest", aspect="equal", **style)
    ax.set(xlim=part[:2], ylim=(part[3], part[2]), xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return artist


def _middle(shape: Sequence[int], step: np.ndarray) -> _Part:
    """The whole of a slice (rows, columns), or its middle where one side is far longer than the other."""
    lengths = np.array([shape[1] * step[0], shape[0] * step[1]])
    shown = np.minimum(lengths, _LONGEST * lengths.min())
    low = (lengths - shown) / 2 - 0.5 * step
    return float(low[0]), float(low[0] + shown[0]), float(low[1]), float(low[1] + shown[1])


def _richest(image: np.ndarray, step: np.ndarray, view: _Part) -> _Part:
    """The square, a third of the view wide, with the most contrast; that is where volumes are worth comparing."""
    side = min(view[1] - view[0], view[3] - view[2]) / 2.6
    window = np.maximum(1, np.rint(side / step[::-1])).astype(int)
    variance = ndimage.uniform_filter(image**2, window) - ndimage.uniform_filter(image, window) ** 2
    rows, columns = (np.arange(n) for n in image.shape)
    x, y = columns * step[0], rows * step[1]
    fits_x = (x - side / 2 >= view[0]) & (x + side / 2 <= view[1])
    fits_y = (y - side / 2 >= view[2]) & (y + side / 2 <= view[3])
    variance[~fits_y] = -np.inf
    variance[:, ~fits_x] = -np.inf
    row, column = np.unravel_index(variance.argmax(), variance.shape)
    left = float(np.clip(x[column] - side / 2, view[0], view[1] - side))
    top = float(np.clip(y[row] - side / 2, view[2], view[3] - side))
    return left, left + side, top, top + side


def _scale_bar(ax: Axes, part: _Part, unit: str) -> None:
    """A bar of a round length, about a quarter of the view, in the lower left corner."""
    width, height = part[1] - part[0], part[3] - part[2]
    power = 10.0 ** math.floor(math.log10(width * 0.32))
    length = max(m * power for m in (1, 2, 5) if m * power <= width * 0.32)
    value = length
    while value >= 1000 and unit in _LARGER:
        value, unit = value / 1000, _LARGER[unit]
    left, top = part[0] + 0.04 * width, part[3] - 0.05 * height
    bar = Rectangle((left, top - 0.02 * height), length, 0.02 * height, facecolor="white", edgecolor="black", lw=0.6)
    ax.add_patch(bar)
    label = ax.text(left + length / 2, top - 0.035 * height, f"{value:g} {SYMBOLS.get(unit, unit)}")
    label.set(color="white", ha="center", va="bottom", fontsize=10, fontweight="bold")
    label.set_bbox({"facecolor": "black", "alpha": 0.45, "pad": 1.5, "edgecolor": "none"})


def _save(figure: Figure, path: str | os.PathLike) -> None:
    write_whole(path, lambda partial: figure.savefig(partial, format="png"))
