# SPDX-License-Identifier: Apache-2.0
"""The shipped weights on real tissue; runs where ../shared/data/fib25 lies beside the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.evaluation.evaluate import evaluate
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.transforms.axial_decimate import AxialDecimate
from scripts.transforms.scale_intensity import ScalePercentiles
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume

REPOSITORY = Path(__file__).resolve().parents[1]
VOLUME = REPOSITORY.parent / "shared" / "data" / "fib25" / "val.ome.tif"

pytestmark = pytest.mark.skipif(
    not VOLUME.is_file(), reason="needs FIB-25 in ../shared/data, which is not part of the repository"
)


@pytest.mark.slow
def test_shipped_weights_beat_interpolation_in_every_plane(tmp_path):
    truth: Any = read_volume(VOLUME)[:, :128, :128, :97]
    lowres: Any = AxialDecimate(8)(truth)
    write_volume(truth, tmp_path / "truth.tif")
    write_volume(lowres, tmp_path / "lowres.tif")
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


@pytest.mark.slow
def test_shipped_weights_leave_no_seam_between_tiles():
    """Tiles of 192 voxels, with the default margin, against the whole plane; in gray levels of the file."""
    volume = ScalePercentiles(0.1, 99.9)(read_volume(VOLUME)[:, :, :64, :25:8])
    parser = ConfigParser(ConfigParser.load_config_file(REPOSITORY / "bundle" / "configs" / "inference.yaml"))
    parser.update({"device": torch.device("cpu"), "factor": 8})
    network = parser.get_parsed_content("network").eval()
    whole, tiled = (AxialInferer(8, tile=tile)(volume[None], network) for tile in (256, 192))
    difference = (whole - tiled).abs() * (volume.meta["intensity_high"] - volume.meta["intensity_low"])
    assert 0 < difference.max() < 0.1
