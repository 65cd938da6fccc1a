# SPDX-License-Identifier: Apache-2.0
"""The whole of D2R on a light microscope's volume, for the eye: there is no sharp truth to score against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from scripts import lattice
from scripts.evaluation.figures import compare_slices
from scripts.provenance import machine
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.volumes.reading import read_volume

from benchmarks.paper.stages import make_stage, run

LIGHT = "light microscopy"
FIGURE = "benchmarks_light.png"


def draw_light_microscopy(volume: Path, settings: Mapping[str, Any], work: Path, figures: Path) -> dict[str, Any]:
    """Keep every few slices, train on these alone, reconstruct, and draw an XZ slice beside what the microscope
    recorded.

    Args:
        volume: recorded with a voxel that is about as long as wide.
        settings: "factor", whole, "options" of ``d2r.yaml``, and "source", whose volume it is.
        work: folder of all results.
        figures: gets the picture.

    Returns:
        What the page tells of it.
    """
    factor = settings["factor"]
    lowres, result = work / "lowres.tif", work / "reconstruction.tif"
    whole = {**settings["options"], "volume": lowres, "factor": factor, "output": result, "workdir": work / "d2r"}
    stages = (
        ("keep some slices", "decimate.yaml", {"volume": volume, "factor": factor, "output": lowres}),
        ("all of D2R", "d2r.yaml", whole),
    )
    run([make_stage(title, config, options["output"], options) for title, config, options in stages])
    recorded = read_volume(volume)
    coarse, fine, true = (
        torch.Tensor.as_subclass(each, torch.Tensor)[0] for each in (read_volume(lowres), read_volume(result), recorded)
    )
    shown = {
        f"input, every {factor}th slice": coarse,
        "cubic interpolation": axial_interpolate(coarse, factor, "cubic"),
        "reconstruction": fine,
        "recorded": true[..., : fine.shape[-1]],
    }
    y, part = _most_contrast(fine)
    parts = {title: each[part].numpy() for title, each in shown.items()}
    spacing, unit = lattice.voxel_size(recorded.affine.numpy()), str(recorded.meta["unit"])
    compare_slices(figures / FIGURE, parts, spacing, unit, factor, index=y)
    return {"volume": volume.name, **settings, "slices": coarse.shape[-1], "machine": machine()}


def _most_contrast(volume: torch.Tensor) -> tuple[int, slice]:
    """Y of an XZ slice and the part of it along X, half as wide again as the volume is deep, where the gray levels vary
    most."""
    width = min(volume.shape[0], round(1.5 * volume.shape[2]))
    step = max(1, width // 4)
    spread = volume.unfold(0, width, step).std((2, 3))  # (parts, Y)
    part, y = divmod(int(spread.argmax()), volume.shape[1])
    return y, slice(part * step, part * step + width)
