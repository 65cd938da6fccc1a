# SPDX-License-Identifier: Apache-2.0
"""What the benchmark reconstructs lies on the grid of the truth that it is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts import lattice
from scripts.volumes.reading import read_volume
from scripts.volumes.writing import write_volume

from benchmarks.paper.tasks import make_task


@pytest.mark.parametrize("factor, finest", [(4, 10), (2.5, 20)])
def test_kept_slices_lie_on_the_truth(tmp_path, factor, finest):
    voxels = torch.arange(8 * 6 * 21, dtype=torch.float32).reshape(1, 8, 6, 21)
    volume = MetaTensor(voxels, affine=torch.diag(torch.tensor([10.0, 10, 10, 1], dtype=torch.float64)))
    volume.meta.update(unit="nanometer", dtype="float32")
    write_volume(volume, tmp_path / "truth.tif")
    task = make_task(tmp_path / "truth.tif", factor, tmp_path)
    truth, lowres = read_volume(task.truth), read_volume(task.lowres)
    assert lattice.voxel_size(truth.affine.numpy()) == pytest.approx((finest, finest, finest))
    assert lattice.voxel_size(lowres.affine.numpy()) == pytest.approx((finest, finest, finest * factor))
    assert lattice.output_size(lowres.shape[-1], factor) <= truth.shape[-1]
    kept = lattice.kept_indices(lowres.shape[-1], factor)
    assert len(kept) > 1
    for place in kept:
        np.testing.assert_array_equal(lowres[..., round(place / factor)], truth[..., place])
    np.testing.assert_array_equal(truth, voxels[:, :: finest // 10, :: finest // 10, :: finest // 10])
