# SPDX-License-Identifier: Apache-2.0
"""Runs ``inference.yaml`` in this process, on the volumes and the weights of the fixture ``folder``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_run import BUNDLE
from monai.bundle import ConfigWorkflow
from sample_volumes import tissue
from scripts.cli.failures import input_error
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.weights import save_weights

FACTOR = 2.5


def write_inputs(path: Path) -> None:
    """Two volumes and the weights of a small network."""
    (path / "volumes").mkdir()
    for name, slices in (("a", 5), ("b", 4)):
        voxels = (200 * tissue(72, 40, slices)[0, 0].permute(2, 1, 0)).round().numpy().astype(np.uint8)
        metadata = {"axes": "ZYX", "spacing": 4.0, "unit": "um"}
        tifffile.imwrite(path / "volumes" / f"{name}.tif", voxels, imagej=True, metadata=metadata)
    torch.manual_seed(0)
    network = AENet((2, 2, 4, 4), settings={"percentiles": [0.1, 99.9], "train_factors": [2, 12]})
    torch.nn.init.normal_(network.output.head.weight, std=0.2)
    save_weights(network, path / "aenet.pt")


def run(folder: Path, **options: Any) -> ConfigWorkflow:
    """Reconstruct; a result that is there is replaced."""
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        **{"weights": str(folder / "aenet.pt"), "factor": FACTOR, "device": "cpu", "overwrite": True, **options},
    )
    workflow.initialize()
    workflow.run()
    return workflow


def refusal(folder: Path, **options: Any) -> str:
    """The line that the run ends in."""
    with pytest.raises((InputError, RuntimeError)) as error:  # MONAI wraps what a section of a config raises
        run(folder, **options)
    return str(input_error(error.value))
