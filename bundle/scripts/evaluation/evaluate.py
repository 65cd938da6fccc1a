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

"""Scores a reconstruction against a truth volume, beside the best aligned interpolation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scripts import lattice
from scripts.errors import InputError
from scripts.evaluation.figures import compare_slices, draw_correlations
from scripts.evaluation.fourier_shell import THRESHOLDS, Curve, shell_correlation
from scripts.evaluation.plane_scores import best_baseline, check_shapes, gains, plane_scores
from scripts.evaluation.tables import resolution_table, rounded_down, score_table
from scripts.provenance import machine
from scripts.transforms.axial_decimate import axial_decimate
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.claim import Claim
from scripts.volumes.json_file import write_json
from scripts.volumes.memory import check_memory
from scripts.volumes.outputs import check_folder
from scripts.volumes.paths import as_path
from scripts.volumes.read_options import AS_STORED, ReadOptions
from scripts.volumes.reading import read_header, read_volume
from scripts.volumes.whole_file import write_whole

_WRITTEN = ("scores.json", "scores.md", "comparison.png", "fsc.png")
_BYTES_A_VOXEL = 16  # of memory at least: truth, reconstruction and both interpolations


def evaluate(
    reconstruction: str | os.PathLike,
    truth: str | os.PathLike,
    factor: float,
    output_dir: str | os.PathLike,
    reading: ReadOptions = AS_STORED,
    reconstruction_reading: ReadOptions = AS_STORED,
) -> dict[str, Any]:
    """Score a reconstruction and both interpolations of the slices it was made from; print and write the result.

    Writes ``scores.json``, ``scores.md`` (the tables), ``comparison.png`` and ``fsc.png`` to ``output_dir``, replacing
    older ones.

    Args:
        reconstruction: volume made from every ``factor``-th slice of the truth.
        truth: isotropic volume. Slices after the last lattice position are left out.
        factor: whole number; for others no slice of the truth lies on the lattice.
        reading: how the truth is read.
        reconstruction_reading: how the reconstruction is read.

    Returns:
        What ``scores.json`` holds.

    Raises:
        InputError: if a file cannot be used, the volumes do not fit or the factor is not a whole number above 1.
    """
    factor = lattice.check_factor(factor)
    if not factor.is_integer():
        raise InputError(f"--factor {factor:g}: scores need a whole factor, for the truth has no slices in between")
    folder = as_path(output_dir)
    with ExitStack() as claims:
        for name in _WRITTEN:
            claims.enter_context(Claim(folder / name))
        check_folder(folder, _WRITTEN, inputs=[reconstruction, truth])
        x, y, z = read_header(truth, reading).shape
        try:
            found = read_header(reconstruction, reconstruction_reading)
        except InputError as error:
            raise InputError(str(error).replace("--axes", "--reconstruction_axes")) from None
        check_shapes(found.shape, (x, y, lattice.covered_size(z, factor)))
        check_memory(_BYTES_A_VOXEL * x * y * z, f"{truth}: scores of it need", "free some, or cut the volumes")
        return _evaluate(reconstruction, truth, factor, folder, reading, reconstruction_reading)


def _evaluate(
    reconstruction: str | os.PathLike,
    truth: str | os.PathLike,
    factor: float,
    folder: Path,
    reading: ReadOptions,
    reconstruction_reading: ReadOptions,
) -> dict[str, Any]:
    """The work of :func:`evaluate`, once it can be written."""
    result = read_volume(reconstruction, reconstruction_reading)
    reference = read_volume(truth, reading)
    true = _array(reference)[..., : lattice.covered_size(reference.shape[-1], factor)]
    lowres = axial_decimate(torch.from_numpy(true), factor)
    dtype = str(reference.meta["dtype"])
    volumes = {mode: _as_stored(axial_interpolate(lowres, factor, mode), lowres, dtype) for mode in ("linear", "cubic")}
    volumes["result"] = _array(result)
    data_range = 255.0 if dtype == "uint8" else float(true.max() - true.min())
    scores = {name: plane_scores(volume, true, factor, data_range) for name, volume in volumes.items()}
    baseline = best_baseline({name: scores[name] for name in ("linear", "cubic")})
    gain = gains(scores["result"], baseline)
    spacing, unit = lattice.voxel_size(reference.affine.numpy()), str(reference.meta["unit"])
    curves = {name: shell_correlation(volume, true, spacing) for name, volume in volumes.items()}
    document = {
        "reconstruction": Path(reconstruction).name,
        "truth": Path(truth).name,
        "factor": factor,
        "shape_xyz": list(true.shape),
        "data_range": data_range,
        "machine": machine(),
        "scores": scores,
        "gain over the better interpolation": gain,
        "resolution by Fourier shell correlation": {
            "unit": unit,
            **{name: resolutions(directions) for name, directions in curves.items()},
        },
    }
    write_json(folder / "scores.json", document)
    table = f"{score_table(_titled(scores), gain)}\n\n{resolution_table(_titled(curves), unit)}"
    print(f"\n{Path(reconstruction).name} against {Path(truth).name}, x{factor:g}\n\n{table}\n")
    write_whole(folder / "scores.md", lambda partial: partial.write_text(table + "\n", encoding="utf-8"))
    shown = {"input": lowres.numpy(), **volumes, "truth": true}
    _draw(folder / "comparison.png", shown, spacing, unit, factor, scores)
    draw_correlations(folder / "fsc.png", _titled(curves), unit)
    print(f"wrote scores.json, scores.md, comparison.png and fsc.png to {folder}")
    return document


def _array(volume: torch.Tensor) -> np.ndarray:
    return torch.Tensor.as_subclass(volume, torch.Tensor)[0].numpy()


def _as_stored(volume: torch.Tensor, lowres: torch.Tensor, dtype: str) -> np.ndarray:
    """Rounded and clipped to the input's range, as a reconstruction is."""
    array = volume.clamp(lowres.min(), lowres.max()).numpy()
    return np.rint(array) if np.issubdtype(np.dtype(dtype), np.integer) else array


def resolutions(directions: Mapping[str, Curve]) -> dict[str, dict[str, Any]]:
    """Where the curves of ``fourier_shell.shell_correlation`` cross their thresholds, for a JSON file.

    Args:
        directions: of one volume, "whole" and "axial".

    Returns:
        Direction -> threshold -> "length" of where the curve crosses it first, and "crossed", whether it does.
    """
    return {
        direction: {f"{threshold:g}": curve.resolution(threshold)._asdict() for threshold in THRESHOLDS}
        for direction, curve in directions.items()
    }


def _titled(scores: Mapping[str, Mapping]) -> dict[str, Mapping]:
    titles = {"linear": "aligned linear", "cubic": "aligned cubic", "result": "reconstruction"}
    return {titles[name]: row for name, row in scores.items()}


def _draw(
    path: Path,
    volumes: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    unit: str,
    factor: float,
    scores: Mapping[str, Mapping],
) -> None:
    mode = max(("linear", "cubic"), key=lambda name: scores[name]["psnr"]["xz"])
    shown = {
        "input": volumes["input"],
        f"{mode} interpolation": volumes[mode],
        "reconstruction": volumes["result"],
        "truth": volumes["truth"],
    }
    captions = {
        title: f"{rounded_down(scores[name]['psnr']['xz'], 2):.2f} dB"
        for title, name in ((f"{mode} interpolation", mode), ("reconstruction", "result"))
    }
    compare_slices(path, shown, spacing, unit, factor, captions=captions)
