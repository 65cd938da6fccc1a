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

"""Scores and resolutions as tables, plain text that is Markdown as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scripts.evaluation.fourier_shell import CONE, THRESHOLDS, Curve
from scripts.evaluation.plane_scores import MEASURES, PLANES
from tabulate import tabulate

SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "px"}
"""Unit of a voxel size -> its symbol."""

_DIGITS = {"psnr": 2, "ssim": 3}


def score_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], gain: Mapping | None = None) -> str:
    """Scores as a plain text table that is Markdown as well.

    Args:
        rows: name of a volume -> its scores, as `plane_scores.plane_scores` returns them.
        gain: from `plane_scores.gains`; becomes a last row of signed numbers.

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
        rows: name of a volume -> its curves, as `fourier_shell.shell_correlation` returns them.
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
        f"Resolution in {symbol} by Fourier shell correlation with the truth, rounded up: lower is better. "
        "<=: agrees down to 2 voxels.",
        "0.5 is the threshold for a comparison with a reference; 0.143 belongs to two independent halves and "
        "flatters here.",
        f"Axial: within {CONE:g} degrees of Z. Slices copied from the input agree with the truth exactly and lower "
        "all these numbers.",
    ]
    return "\n".join([_table(header, body), "", *notes])


def rounded_down(value: float, digits: int) -> float:
    """``value`` cut to ``digits`` decimals: what is shown must not promise more than was measured."""
    # The small number absorbs how 25.5 is stored.
    return math.floor(value * 10**digits + 1e-6) / 10 ** digits if math.isfinite(value) else value


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    # The cells are text already: tabulate would round numbers its own way.
    alignment = ["left", *["right"] * (len(header) - 1)]
    return tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)


def _cell(name: str) -> str:
    return name.replace("|", "/")


def _numbers(scores: Mapping[str, Mapping[str, float]], sign: str) -> list[str]:
    return [
        f"{rounded_down(float(scores[measure][plane]), _DIGITS[measure]):{sign}.{_DIGITS[measure]}f}"
        for measure in MEASURES
        for plane in PLANES
    ]
