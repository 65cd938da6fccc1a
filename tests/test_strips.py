# SPDX-License-Identifier: Apache-2.0
"""Stage II in strips: the same files as in one, nothing half-written, and the voxels of a whole volume never at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from bundle_run import BUNDLE, PRIOR_NETWORK
from monai.bundle import ConfigWorkflow
from scripts.cli.failures import input_error
from scripts.diffusion import room
from scripts.networks.nafnet import ConditionalNAFNet
from scripts.networks.weights import save_weights
from scripts.volumes.reading import VolumeSource

SHAPE = (5, 21, 18)  # (z, y, x)
RESULTS = ("pseudo_hr.tif", "disagreement.tif", "disagreement.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    values = np.random.default_rng(0).integers(20, 200, SHAPE).astype(np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", values, imagej=True, metadata={"axes": "ZYX"})
    numbers = {"delta": 50 / 255, "timesteps": 100, "percentiles": [0.1, 99.9], "prior_factor": 2.5}
    save_weights(ConditionalNAFNet(**PRIOR_NETWORK, settings=numbers), tmp_path / "prior.pt")
    return tmp_path


def restore(folder: Path, name: str, **options: Any) -> dict[str, bytes]:
    """What stage II writes into a folder of that name."""
    files = {"volume": folder / "in.tif", "weights": folder / "prior.pt", "output_dir": folder / name}
    given = {"factor": 2.5, "num_steps": 2, "device": "cpu", "batch_size": 2, **options}
    file = str(BUNDLE / "configs" / "generate.yaml")
    given.update({key: str(value) for key, value in files.items()})
    workflow = ConfigWorkflow(file, workflow_type=None, logging_file=False, **given)
    workflow.initialize()
    workflow.run()
    return {result: (folder / name / result).read_bytes() for result in RESULTS}


@pytest.mark.parametrize("options", [{}, {"prior_factor": 1}, {"axis": "y"}])
def test_strips_give_the_files_of_the_whole(folder, monkeypatch, options):
    expected, read, original = restore(folder, "whole", **options), [], VolumeSource.read_block

    def watch(self: VolumeSource, x: slice, y: slice, z: range) -> np.ndarray:
        block = original(self, x, y, z)
        read.append(block.size)
        return block

    monkeypatch.setattr(VolumeSource, "read_block", watch)
    monkeypatch.setattr(room, "_MOST_VOXELS", 600)
    found = restore(folder, "strips", **options)
    assert found == expected
    assert len(read) > 3 and max(read) < np.prod(SHAPE) // 2


def test_a_disk_that_is_full_leaves_slices_and_no_file(folder, monkeypatch):
    expected, original = restore(folder, "whole"), os.pwrite
    monkeypatch.setattr(room, "_MOST_VOXELS", 600)

    def fail(file: int, *rest: Any) -> int:
        if os.readlink(f"/proc/self/fd/{file}").endswith(".tif"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(file, *rest)

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(Exception) as caught:
        restore(folder, "full")
    mistake = str(input_error(caught.value))
    assert "cannot be written (No space left on device); free some space" in mistake and "\n" not in mistake
    left = {path.name for path in (folder / "full").iterdir() if not path.name.startswith(".")}
    assert left == {"unfinished", "provenance.json", "finished.json", "prior_check.json"}
    assert not [path for path in (folder / "full").iterdir() if path.name.endswith(".tif")]
    monkeypatch.setattr(os, "pwrite", original)
    assert restore(folder, "full") == expected


def test_preprocessing_that_changes_the_shape_is_refused(folder):
    zoom = {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [30, 30, 30]}
    with pytest.raises(Exception) as caught:
        restore(folder, "padded", **{"preprocessing#transforms#1": zoom})
    assert "leave the shape as it is" in str(input_error(caught.value))
