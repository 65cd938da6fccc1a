# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Figures to judge a result by: volumes side by side, disagreement of stage II, Fourier shell correlation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from scripts.errors import InputError
from scripts.evaluation.fourier_shell import THRESHOLDS, Curve
from scripts.evaluation.plane_scores import PLANES
from scripts.evaluation.slice_view import add_scale_bar, central_view, detail_view, draw_slice
from scripts.evaluation.tables import SYMBOLS
from scripts.volumes.whole_file import write_whole

_DPI = 150
_COLUMN = 3.3  # inches, the width of one picture
_HIGHLIGHT = "#ffd23f"
_RESULT = "#d1495b"
_CURVES = ("#8d99ae", "#2b6cb0", "#66a182", "#edae49")


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

    All share the gray-level window of the last volume. Voxels are drawn as blocks of their true size, so the input
    shows its coarse slices. Only the middle is shown of a slice much longer than wide.

    Args:
        path: the file; replaced when it exists.
        volumes: title -> array (X, Y, Z), in the order of the columns; the truth, or else the result, last.
        spacing: voxel size (x, y, z) of the volumes with the most slices.
        unit: of the spacing: "micrometer", "nanometer", "millimeter" or "pixel".
        factor: how many times wider apart the slices are in a volume that has fewer of them.
        plane: "xy" (for volumes of equally many slices), "xz" or "yz".
        index: which slice; the middle one by default.
        captions: title -> a second line under that title, its score for example.

    Raises:
        InputError: for an unknown plane or an index outside the volume, or if the file cannot be written.
    """
    if plane not in PLANES:
        raise InputError(f"plane '{plane}' is unknown: choose one of {', '.join(PLANES)}")
    axis = PLANES[plane]
    arrays = {name: np.asarray(volume) for name, volume in volumes.items()}
    slices = max(a.shape[2] for a in arrays.values())
    size = min(a.shape[axis] for a in arrays.values())
    index = size // 2 if index is None else index
    if not 0 <= index < size:
        raise InputError(f"slice {index} is outside the volume: {plane.upper()} has slices 0 to {size - 1}")

    panels = []
    for name, array in arrays.items():
        step = np.array(spacing, dtype=float)
        step[2] *= factor if array.shape[2] < slices else 1.0
        panels.append((name, array.take(index, axis=axis).astype(np.float32).T, np.delete(step, axis)))
    reference, step = panels[-1][1:]
    window = tuple(np.percentile(reference, (0.5, 99.5)))
    view = central_view(reference.shape, step)
    detail = detail_view(reference, step, view)

    height = _COLUMN * view.height / view.width
    titles = 0.62 if captions else 0.38
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(_COLUMN * len(panels), height + _COLUMN + titles), dpi=_DPI, layout=layout)
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=(height, _COLUMN))
    for column, (name, image, step) in zip(axes.T, panels):
        for ax, part in zip(column, (view, detail)):
            draw_slice(ax, image, step, part, cmap="gray", vmin=window[0], vmax=window[1])
        column[0].set_title(name, fontsize=13, fontweight="bold" if name == panels[-1][0] else "normal")
        if captions and name in captions:
            column[0].set_title(f"{name}\n{captions[name]}", fontsize=12)
        frame = Rectangle((detail.left, detail.top), detail.width, detail.height, fill=False, linewidth=1.4)
        frame.set_edgecolor(_HIGHLIGHT)
        column[0].add_patch(frame)
        for spine in column[1].spines.values():
            spine.set(visible=True, edgecolor=_HIGHLIGHT, linewidth=1.8)
    for ax in axes[:, 0]:
        add_scale_bar(ax, unit)
    axes[0, 0].set_ylabel(f"{plane.upper()}, slice {index}", fontsize=11)
    axes[1, 0].set_ylabel("enlarged", fontsize=11)
    _save(figure, path)


def show_disagreement(
    path: str | os.PathLike,
    pairs: Mapping[str, Sequence[np.ndarray]],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
) -> None:
    """Draw an XZ and a YZ slice of a pseudo-HR volume above the map of where its two restorations differ.

    Args:
        path: the PNG; replaced when it exists.
        pairs: of "xz" the slices (X, Z), of "yz" (Y, Z): of the pseudo-HR volume, and how far the XZ and YZ
            restorations are apart there, in its gray levels.
        spacing: voxel size (x, y, z).
        unit: of the spacing.

    Raises:
        InputError: if the shapes differ or the file cannot be written.
    """
    slices = {}
    for plane, (pseudo, disagreement) in pairs.items():
        if pseudo.shape != disagreement.shape:
            raise InputError(
                f"pseudo-HR volume {pseudo.shape} and disagreement map {disagreement.shape} differ in size"
            )
        pair = [each.astype(np.float32).T for each in (pseudo, disagreement)]
        slices[plane] = (*pair, np.delete(np.array(spacing, dtype=float), PLANES[plane]))
    window = np.percentile(np.concatenate([s[0].ravel() for s in slices.values()]), (0.5, 99.5))
    highest = max(float(np.percentile(np.concatenate([s[1].ravel() for s in slices.values()]), 99.5)), 1e-6)

    views = {plane: central_view(image.shape, step) for plane, (image, _, step) in slices.items()}
    height = _COLUMN * 1.3 * max(view.height / view.width for view in views.values())
    figure = Figure(figsize=(_COLUMN * 2.6 + 0.9, 2 * height + 0.5), dpi=_DPI, layout="constrained")
    axes = figure.subplots(2, 2)
    for column, (plane, (image, difference, step)) in zip(axes.T, slices.items()):
        draw_slice(column[0], image, step, views[plane], cmap="gray", vmin=window[0], vmax=window[1])
        heat = draw_slice(column[1], difference, step, views[plane], cmap="magma", vmin=0.0, vmax=highest)
        column[0].set_title(plane.upper(), fontsize=13)
    add_scale_bar(axes[0, 0], unit)
    axes[0, 0].set_ylabel("pseudo-HR", fontsize=11)
    axes[1, 0].set_ylabel("disagreement of XZ and YZ", fontsize=11)
    figure.colorbar(heat, ax=axes[1, :], label="gray levels", extend="max", fraction=0.05, pad=0.01)
    _save(figure, path)


def draw_correlations(path: str | os.PathLike, rows: Mapping[str, Mapping[str, Curve]], unit: str = "pixel") -> None:
    """Draw Fourier shell correlations by spatial frequency, whole and axial, with the thresholds, as a PNG.

    Args:
        path: the file; replaced when it exists.
        rows: name of a volume -> its curves, as `fourier_shell.shell_correlation` returns them; the result last.
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
        color = _RESULT if last else next(others, "0.5")
        for direction, style in styles.items():
            # A correlation is 1 at frequency 0, where there is no shell.
            frequency, correlation = (
                np.concatenate([[first], values])
                for first, values in ((0, curves[direction].frequency), (1, curves[direction].correlation))
            )
            label = name if direction == "whole" else None
            ax.plot(frequency, correlation, style, color=color, label=label, linewidth=2.0 if last else 1.3)
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
    top.set_xlabel(f"wavelength ({symbol})", fontsize=11)
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    write_whole(path, lambda partial: figure.savefig(partial, format="png"))
