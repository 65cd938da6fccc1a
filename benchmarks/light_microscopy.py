# SPDX-License-Identifier: Apache-2.0
"""The whole of D2R on a light microscope's volume, for the eye: there is no sharp truth to score against."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from stages import make_stage, run  # noqa: E402

from scripts import lattice  # noqa: E402
from scripts.io import read_volume  # noqa: E402
from scripts.report import compare_slices  # noqa: E402
from scripts.settings import machine  # noqa: E402
from scripts.transforms.axial_interpolate import axial_interpolate  # noqa: E402

FIGURE = "benchmarks_light.png"


def draw_light_microscopy(volume: Path, settings: Mapping[str, Any], work: Path, figures: Path) -> dict[str, Any]:
    """Keep every few slices, train on these alone, reconstruct, and draw an XZ slice beside what the microscope recorded.

    Args:
        volume: recorded with a voxel that is about as long as wide.
        settings: "factor", whole, and "options" of ``d2r.yaml``.
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
    spacing, unit = lattice.voxel_size(recorded.affine.numpy()), str(recorded.meta["unit"])
    compare_slices(figures / FIGURE, {title: each.numpy() for title, each in shown.items()}, spacing, unit, factor)
    return {"volume": volume.name, **settings, "slices": coarse.shape[-1], "machine": machine()}
