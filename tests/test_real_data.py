# SPDX-License-Identifier: Apache-2.0
"""The shipped weights on real tissue; runs where ../shared/data/fib25 lies beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from scripts.evaluation import evaluate
from scripts.io import read_volume, write_volume
from scripts.transforms.axial_decimate import AxialDecimate

REPOSITORY = Path(__file__).resolve().parents[1]
VOLUME = REPOSITORY.parent / "shared" / "data" / "fib25" / "val.ome.tif"

pytestmark = pytest.mark.skipif(
    not VOLUME.is_file(), reason="needs FIB-25 in ../shared/data, which is not part of the repository"
)


def test_shipped_weights_beat_interpolation_in_every_plane(tmp_path):
    truth = read_volume(VOLUME)[:, :128, :128, :97]
    write_volume(truth, tmp_path / "truth.tif")
    write_volume(AxialDecimate(8)(truth), tmp_path / "lowres.tif")
    workflow = ConfigWorkflow(
        config_file=str(REPOSITORY / "bundle" / "configs" / "inference.yaml"),
        workflow_type="inference",
        volume=str(tmp_path / "lowres.tif"),
        output=str(tmp_path / "x8.tif"),
        device=torch.device("cpu"),
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()

    gain = evaluate(tmp_path / "x8.tif", tmp_path / "truth.tif", 8, tmp_path)["gain over the better interpolation"]

    assert min(gain["psnr"].values()) > 0.4  # dB; a cube this small has many edges
    assert min(gain["ssim"].values()) > 0.02
